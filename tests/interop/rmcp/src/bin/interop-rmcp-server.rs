//! An MCP server on the Rust SDK, for the gateway to stand in front of: interop-rmcp-server PORT
//!
//! Speaks both eras, the legacy one in sessions. Its tools are those of `servers.py`, but for `whoami`.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock, ProgressNotificationParam};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

const STEPS: u32 = 3;
const STEP: Duration = Duration::from_millis(100);

#[derive(Deserialize, JsonSchema)]
struct Addends {
    a: i64,
    b: i64,
}

#[derive(Deserialize, JsonSchema)]
struct Somebody {
    name: String,
}

#[derive(Deserialize, JsonSchema)]
struct Failure {
    reason: String,
}

#[derive(Clone)]
struct Server {
    tool_router: ToolRouter<Self>,
}

#[tool_router]
impl Server {
    #[tool(description = "Adds two numbers.")]
    async fn add(&self, Parameters(Addends { a, b }): Parameters<Addends>) -> CallToolResult {
        CallToolResult::structured(json!({"result": a + b}))
    }

    #[tool(description = "Greets somebody.")]
    async fn greet(&self, Parameters(Somebody { name }): Parameters<Somebody>) -> String {
        format!("Hello, {name}!")
    }

    #[tool(description = "Fails.")]
    async fn fail(&self, Parameters(Failure { reason }): Parameters<Failure>) -> CallToolResult {
        CallToolResult::error(vec![ContentBlock::text(reason)])
    }

    #[tool(description = "Takes its time, and reports each step.")]
    async fn slow(&self, context: RequestContext<RoleServer>) -> Result<String, ErrorData> {
        for step in 1..=STEPS {
            tokio::time::sleep(STEP).await;
            if let Some(token) = context.meta.get_progress_token() {
                let progress = ProgressNotificationParam::new(token, step.into()).with_total(STEPS.into());
                // Whoever does not listen any more does not want to know.
                let _ = context.peer.notify_progress(progress).await;
            }
        }
        tokio::time::sleep(STEP).await;
        Ok("done".to_owned())
    }

    #[tool(description = "Must never be reached by anybody but its owner.")]
    async fn secret_delete(&self) -> String {
        "deleted".to_owned()
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Server {}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("expected a port")?.parse()?;
    let make = || Ok(Server { tool_router: Server::tool_router() });
    let config = StreamableHttpServerConfig::default();
    let service = StreamableHttpService::new(make, Arc::<LocalSessionManager>::default(), config);
    let router = axum::Router::new().nest_service("/mcp", service);
    axum::serve(tokio::net::TcpListener::bind(("127.0.0.1", port)).await?, router).await?;
    Ok(())
}
