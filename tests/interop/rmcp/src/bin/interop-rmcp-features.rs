//! What the Rust SDK can do beside tools: interop-rmcp-features JOB
//!
//! `clients/features.py` says what JOB is; it has a `mode` too: `auto` or `legacy`. Its checks are those of that file.

#![expect(deprecated, reason = "what 2026-07-28 deprecates is used all the same")]

use std::collections::HashSet;
use std::error::Error;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::model::*;
use rmcp::service::{NotificationContext, RequestContext, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt, ErrorData, RoleClient};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Of one check.
const LIMIT: Duration = Duration::from_secs(6);
const AGAIN: Duration = Duration::from_millis(50);

type Failure = Box<dyn Error + Send + Sync>;
type Found = Result<Value, Failure>;
type Client = RunningService<RoleClient, Answers>;

/// What answers a server, and what it said unasked: URIs of resources that changed, and "tools"; clones share it.
#[derive(Clone)]
struct Answers {
    mark: String,
    heard: Arc<(Mutex<HashSet<String>>, Notify)>,
}

impl Answers {
    fn hear(&self, thing: &str) {
        self.heard.0.lock().unwrap().insert(thing.to_owned());
        self.heard.1.notify_one();
    }

    async fn wait(&self, thing: &str) {
        while !self.heard.0.lock().unwrap().contains(thing) {
            self.heard.1.notified().await;
        }
    }
}

impl ClientHandler for Answers {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder().enable_elicitation().enable_sampling().enable_roots().build();
        ClientConfig::new(capabilities, Implementation::new("interop", "1.0.0"))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(match request {
            ElicitRequestParams::FormElicitationParams { message, .. } if !message.contains("decline") => {
                ElicitResult::new(ElicitationAction::Accept).with_content(json!({"name": self.mark}))
            }
            _ => ElicitResult::new(ElicitationAction::Decline),
        })
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let blocks = params.messages.into_iter().flat_map(|message| message.content.into_vec());
        let question: String = blocks.filter_map(|block| block.as_text().map(|text| text.text.clone())).collect();
        let said = SamplingMessage::assistant_text(format!("{} hears: {question}", self.mark));
        Ok(CreateMessageResult::new(said, "interop".to_owned()))
    }

    async fn list_roots(&self, _: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        Ok(ListRootsResult::new(vec![Root::new(format!("file:///{}", self.mark))]))
    }

    async fn on_resource_updated(&self, params: ResourceUpdatedNotificationParam, _: NotificationContext<RoleClient>) {
        self.hear(&params.uri);
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.hear("tools");
    }
}

/// One session.
struct Session {
    client: Client,
    answers: Answers,
    prefix: String,
    package: String,
    modern: bool,
}

impl Session {
    fn uri(&self, path: &str) -> String {
        format!("note://{}/{path}", self.package)
    }

    fn own(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn call(&self, name: &str, arguments: Value) -> Result<String, Failure> {
        let mut params = CallToolRequestParams::new(self.own(name));
        params.arguments = arguments.as_object().cloned();
        let result = self.client.call_tool(params).await?;
        Ok(result.content.iter().filter_map(|block| block.as_text().map(|text| text.text.clone())).collect())
    }

    async fn read_text(&self, uri: &str) -> Result<String, Failure> {
        let result = self.client.read_resource(ReadResourceRequestParams::new(uri)).await?;
        let texts = result.contents.into_iter().filter_map(|contents| match contents {
            ResourceContents::TextResourceContents { text, .. } => Some(text),
            _ => None,
        });
        Ok(texts.collect())
    }

    /// Begins to listen for a URI, or else for tools; what comes of it is heard until the task is aborted.
    async fn watch(&self, uri: Option<&str>) -> Result<JoinHandle<()>, Failure> {
        if !self.modern {
            if let Some(uri) = uri {
                self.client.subscribe(SubscribeRequestParams::new(uri)).await?;
            }
            return Ok(tokio::spawn(async {}));
        }
        let wanted = match uri {
            Some(uri) => SubscriptionFilter::builder().resource_subscription(uri),
            None => SubscriptionFilter::builder().tools_list_changed(),
        };
        let mut subscription = self.client.listen(wanted.build()).await?;
        let answers = self.answers.clone();
        Ok(tokio::spawn(async move {
            while let Ok(Some(said)) = subscription.next().await {
                match said {
                    ServerNotification::ResourceUpdatedNotification(update) => answers.hear(&update.params.uri),
                    ServerNotification::ToolListChangedNotification(_) => answers.hear("tools"),
                    _ => {}
                }
            }
        }))
    }

    async fn tool(&self, name: &str, arguments: Value) -> Found {
        Ok(self.call(name, arguments).await?.into())
    }

    async fn prompt(&self) -> Found {
        let name = self.own("letter");
        let listed = self.client.list_all_prompts().await?.iter().any(|prompt| prompt.name == name);
        let mut params = GetPromptRequestParams::new(name);
        params.arguments = json!({"to": self.answers.mark}).as_object().cloned();
        let result = self.client.get_prompt(params).await?;
        let texts =
            result.messages.iter().filter_map(|message| message.content.as_text().map(|text| text.text.clone()));
        Ok(json!([listed, texts.collect::<String>()]))
    }

    async fn read(&self) -> Found {
        let uri = self.uri("fixed");
        let listed = self.client.list_all_resources().await?.iter().any(|resource| resource.uri == uri);
        Ok(json!([listed, self.read_text(&uri).await?]))
    }

    async fn template(&self) -> Found {
        let template = self.uri("about/{topic}");
        let listed = self.client.list_all_resource_templates().await?.iter().any(|one| one.uri_template == template);
        Ok(json!([listed, self.read_text(&self.uri(&format!("about/{}", self.answers.mark))).await?]))
    }

    async fn complete(&self) -> Found {
        let to = self.client.complete_prompt_simple(self.own("letter"), "to", "A").await?;
        let topic = self.client.complete_resource_simple(self.uri("about/{topic}"), "topic", "t").await?;
        Ok(json!([to, topic]))
    }

    async fn update(&self) -> Found {
        let uri = self.uri("counter");
        let watching = self.watch(Some(&uri)).await?;
        let bumped: u32 = self.call("bump", json!({})).await?.parse()?;
        self.answers.wait(&uri).await;
        watching.abort();
        // Others bump it too.
        let found: u32 = self.read_text(&uri).await?.parse()?;
        Ok((found >= bumped).into())
    }

    async fn list_changed(&self) -> Found {
        let watching = self.watch(None).await?;
        let name = format!("grown-{}", self.answers.mark);
        self.call("grow", json!({"name": name})).await?;
        self.answers.wait("tools").await;
        // What was heard may have been of another's.
        while !self.client.list_all_tools().await?.iter().any(|tool| tool.name == self.own(&name)) {
            tokio::time::sleep(AGAIN).await;
        }
        watching.abort();
        Ok(true.into())
    }
}

async fn settled(check: impl Future<Output = Found>) -> Value {
    match tokio::time::timeout(LIMIT, check).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => json!({"error": error.to_string()}),
        Err(_) => json!({"error": format!("nothing for {LIMIT:?}")}),
    }
}

fn text(object: &Value, member: &str) -> String {
    object[member].as_str().unwrap_or_default().to_owned()
}

async fn open(mode: &str, wanted: &Value, answers: Answers) -> Result<Client, Failure> {
    let mut config = StreamableHttpClientTransportConfig::with_uri(text(wanted, "url"));
    if let Some(token) = wanted["token"].as_str() {
        config = config.auth_header(token);
    }
    let lifecycle = match mode {
        "legacy" => ClientLifecycleMode::Initialize,
        _ => ClientLifecycleMode::Auto { preferred_versions: vec![ProtocolVersion::LATEST], legacy_version: None },
    };
    Ok(answers.serve_with_lifecycle(StreamableHttpClientTransport::from_config(config), lifecycle).await?)
}

async fn session(mode: String, wanted: Value) -> Value {
    let answers = Answers { mark: text(&wanted, "mark"), heard: Arc::default() };
    let client = match open(&mode, &wanted, answers.clone()).await {
        Ok(client) => client,
        Err(error) => return json!({"error": error.to_string()}),
    };
    let version = client.peer_info().map(|info| info.protocol_version.clone());
    let modern = version.as_ref().is_some_and(|version| *version >= ProtocolVersion::V_2026_07_28);
    let (prefix, package) = (text(&wanted, "prefix"), text(&wanted, "package"));
    let session = Session { client, answers, prefix, package, modern };
    let done = json!({
        "version": version.map(|version| version.to_string()),
        "elicit": settled(session.tool("ask", json!({"question": "Who are you?"}))).await,
        "decline": settled(session.tool("ask", json!({"question": "Will you decline?"}))).await,
        "sample": settled(session.tool("sample", json!({"question": "Why?"}))).await,
        "roots": settled(session.tool("roots", json!({}))).await,
        "chat": settled(session.tool("chat", json!({}))).await,
        "prompt": settled(session.prompt()).await,
        "read": settled(session.read()).await,
        "template": settled(session.template()).await,
        "complete": settled(session.complete()).await,
        "update": settled(session.update()).await,
        "list_changed": settled(session.list_changed()).await,
    });
    // Whoever has gone already needs no farewell.
    let _ = session.client.cancel().await;
    done
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let job: Value = serde_json::from_str(&std::env::args().nth(1).ok_or("expected a job")?)?;
    let sessions = job["sessions"].as_array().cloned().unwrap_or_default();
    let tasks: Vec<_> = sessions.into_iter().map(|wanted| tokio::spawn(session(text(&job, "mode"), wanted))).collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await?);
    }
    println!("{}", Value::from(done));
    Ok(())
}
