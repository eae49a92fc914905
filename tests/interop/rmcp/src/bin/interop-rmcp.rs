//! Sessions of the Rust SDK, which speaks both eras: interop-rmcp JOB
//!
//! `clients/sessions.py` says what JOB is; it has a `mode` too: `auto`, `legacy` or a revision. Prints what it saw as JSON,
//! session by session; `support.Seen` names the fields.

#![expect(deprecated, reason = "log messages are, since 2026-07-28, and are listened for all the same")]

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rmcp::model::{
    CallToolRequestParams, CallToolResult, ContentBlock, LoggingMessageNotificationParam, ProgressNotificationParam,
    ProtocolVersion,
};
use rmcp::service::{ClientInitializeError, NotificationContext, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt, RoleClient, ServiceError};
use serde_json::{Map, Value, json};

/// What was heard beside the answers; clones share it.
#[derive(Clone, Default)]
struct Ears(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    progress: Vec<(f64, Instant)>,
    logged: Vec<Value>,
}

impl ClientHandler for Ears {
    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.0.lock().unwrap().progress.push((params.progress, Instant::now()));
    }

    async fn on_logging_message(&self, params: LoggingMessageNotificationParam, _: NotificationContext<RoleClient>) {
        self.0.lock().unwrap().logged.push(params.data);
    }
}

type Client = RunningService<RoleClient, Ears>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let job: Value = serde_json::from_str(&std::env::args().nth(1).ok_or("expected a job")?)?;
    let (url, mode) = (text(&job, "url"), text(&job, "mode"));
    let mut seen = Vec::new();
    // One after the other: a busy client would hear progress late.
    for wanted in job["sessions"].as_array().into_iter().flatten() {
        let ears = Ears::default();
        seen.push(match open(&url, &mode, wanted["token"].as_str(), ears.clone()).await {
            Ok(client) => session(client, &ears, wanted).await?,
            Err(error) => json!({"refused": format!("{error:?}")}),
        });
    }
    println!("{}", Value::from(seen));
    Ok(())
}

fn text(object: &Value, member: &str) -> String {
    object[member].as_str().unwrap_or_default().to_owned()
}

async fn open(url: &str, mode: &str, token: Option<&str>, ears: Ears) -> Result<Client, ClientInitializeError> {
    let mut config = StreamableHttpClientTransportConfig::with_uri(url);
    if let Some(token) = token {
        config = config.auth_header(token);
    }
    let preferred_versions = vec![ProtocolVersion::LATEST];
    let lifecycle = match mode {
        "legacy" => ClientLifecycleMode::Initialize,
        "auto" => ClientLifecycleMode::Auto { preferred_versions, legacy_version: None },
        _ => ClientLifecycleMode::Discover { preferred_versions },
    };
    ears.serve_with_lifecycle(StreamableHttpClientTransport::from_config(config), lifecycle).await
}

async fn session(client: Client, ears: &Ears, wanted: &Value) -> Result<Value, Box<dyn Error>> {
    let prefix = text(wanted, "prefix");
    let version = client.peer_info().map(|info| info.protocol_version.to_string());
    let tools = client.list_all_tools().await?;
    let names: Vec<_> =
        tools.iter().map(|tool| tool.name.to_string()).filter(|name| name.starts_with(&prefix)).collect();
    let mut calls = Map::new();
    for (name, arguments) in wanted["calls"].as_object().into_iter().flatten() {
        let mut params = CallToolRequestParams::new(format!("{prefix}{name}"));
        params.arguments = arguments.as_object().cloned();
        let begun = Instant::now();
        let result = client.call_tool(params).await;
        let ended = begun.elapsed().as_secs_f64();
        let progress = std::mem::take(&mut ears.0.lock().unwrap().progress);
        calls.insert(name.clone(), called(result, &progress, begun, ended)?);
    }
    client.cancel().await?;
    let logged = std::mem::take(&mut ears.0.lock().unwrap().logged);
    Ok(json!({"version": version, "tools": names, "calls": calls, "logged": logged}))
}

fn called(
    result: Result<CallToolResult, ServiceError>,
    progress: &[(f64, Instant)],
    begun: Instant,
    ended: f64,
) -> Result<Value, Box<dyn Error>> {
    let result = match result {
        Ok(result) => result,
        Err(ServiceError::McpError(error)) => return Ok(json!({"code": error.code.0, "message": error.message})),
        Err(other) => return Err(other.into()),
    };
    let text = result.content.first().and_then(|block| match block {
        ContentBlock::Text(text) => Some(text.text.clone()),
        _ => None,
    });
    let mut times: Vec<f64> = progress.iter().map(|(_, at)| at.duration_since(begun).as_secs_f64()).collect();
    times.push(ended);
    let progress: Vec<f64> = progress.iter().map(|(done, _)| *done).collect();
    Ok(json!({
        "error": result.is_error.unwrap_or(false),
        "text": text.unwrap_or_default(),
        "structured": result.structured_content,
        "progress": progress,
        "times": times,
    }))
}
