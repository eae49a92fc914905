//! An MCP server on the Rust SDK with everything but tools alone: interop-rmcp-features-server PORT
//!
//! Speaks both eras, the legacy one in sessions, and offers what `features.py` says.

#![expect(deprecated, reason = "what 2026-07-28 deprecates is offered all the same")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};

use rmcp::model::*;
use rmcp::service::{NotificationContext, Peer, RequestContext, ServiceError, SubscriptionContext};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::broadcast;

const WHO: &str = "Who are you?";
const COUNTER: &str = "note://rmcp/counter";
const FIXED: &str = "note://rmcp/fixed";
const ABOUT: &str = "note://rmcp/about/";
const PEOPLE: [&str; 3] = ["Ada", "Alan", "Grace"];
const TOPICS: [&str; 3] = ["tea", "toast", "milk"];

/// What changes, and who has to be told; shared by all sessions and requests.
struct Shared {
    count: Mutex<u32>,
    grown: Mutex<Vec<String>>,
    /// The legacy sessions, and those of them that subscribed to the counter.
    sessions: Mutex<Vec<Peer<RoleServer>>>,
    subscribers: Mutex<Vec<Peer<RoleServer>>>,
    /// Tells the modern streams.
    changes: broadcast::Sender<Change>,
}

#[derive(Clone, Copy)]
enum Change {
    Counter,
    Tools,
}

#[derive(Clone)]
struct Server(Arc<Shared>);

/// What a tool comes to: the text of its result, or what it has to know before.
enum Outcome {
    Text(String),
    Ask(&'static str, InputRequest, Option<&'static str>),
}

fn form(question: &str) -> ElicitRequestParams {
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]});
    let requested_schema = serde_json::from_value(schema).expect("a schema");
    ElicitRequestParams::FormElicitationParams { meta: None, message: question.to_owned(), requested_schema }
}

fn message(question: &str) -> CreateMessageRequestParams {
    CreateMessageRequestParams::new(vec![SamplingMessage::user_text(question)], 10)
}

/// What `ask` says of an elicitation, from its result as JSON.
fn elicited(result: &Value) -> String {
    let action = result["action"].as_str().unwrap_or_default();
    match result["content"]["name"].as_str() {
        Some(name) => format!("{action} {name}"),
        None => action.to_owned(),
    }
}

fn said(result: &Value) -> String {
    result["content"]["text"].as_str().unwrap_or_default().to_owned()
}

fn listed(result: &Value) -> String {
    let roots = result["roots"].as_array().into_iter().flatten();
    roots.filter_map(|root| root["uri"].as_str()).collect::<Vec<_>>().join(" ")
}

fn failure(error: ServiceError) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

fn json_of(result: impl serde::Serialize) -> Result<Value, ErrorData> {
    serde_json::to_value(result).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

/// Asks the legacy way, with a request of its own while the call runs.
async fn push(peer: &Peer<RoleServer>, request: InputRequest) -> Result<Value, ErrorData> {
    match request {
        InputRequest::Elicitation(request) => json_of(peer.create_elicitation(request.params).await.map_err(failure)?),
        InputRequest::CreateMessage(request) => json_of(peer.create_message(request.params).await.map_err(failure)?),
        InputRequest::ListRoots(_) => json_of(peer.list_roots().await.map_err(failure)?),
        _ => Err(ErrorData::internal_error("nothing to ask", None)),
    }
}

impl Server {
    /// One round of a tool that asks, which has the `answers` so far.
    fn round(name: &str, question: &str, answers: &BTreeMap<String, Value>) -> Option<Outcome> {
        let who = |question| InputRequest::Elicitation(ElicitRequest::new(form(question)));
        let model = |question: &str| InputRequest::CreateMessage(CreateMessageRequest::new(message(question)));
        Some(match (name, answers.get("who"), answers.get("said"), answers.get("listed")) {
            ("ask", Some(result), ..) => Outcome::Text(elicited(result)),
            ("ask", ..) => Outcome::Ask("who", who(question), None),
            ("sample" | "chat", _, Some(result), _) => Outcome::Text(said(result)),
            ("sample", ..) => Outcome::Ask("said", model(question), None),
            ("roots", _, _, Some(result)) => Outcome::Text(listed(result)),
            ("roots", ..) => Outcome::Ask("listed", InputRequest::ListRoots(ListRootsRequest::default()), None),
            ("chat", Some(result), ..) => {
                let name = result["content"]["name"].as_str().unwrap_or_default();
                Outcome::Ask("said", model(&format!("Greet {name}.")), Some("asked"))
            }
            ("chat", ..) => Outcome::Ask("who", who(WHO), None),
            _ => return None,
        })
    }

    async fn bump(&self) -> String {
        let count = {
            let mut count = self.0.count.lock().unwrap();
            *count += 1;
            *count
        };
        let _ = self.0.changes.send(Change::Counter);
        let subscribers = self.0.subscribers.lock().unwrap().clone();
        for peer in subscribers {
            // Whoever has gone does not want to know.
            let _ = peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(COUNTER)).await;
        }
        count.to_string()
    }

    async fn grow(&self, name: &str) -> String {
        self.0.grown.lock().unwrap().push(name.to_owned());
        let _ = self.0.changes.send(Change::Tools);
        let sessions = self.0.sessions.lock().unwrap().clone();
        for peer in sessions {
            let _ = peer.notify_tool_list_changed().await;
        }
        "grown".to_owned()
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_prompts()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_completions()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("features", "1.0.0"))
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        self.0.sessions.lock().unwrap().push(context.peer);
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = |argument: Option<&str>| {
            let properties: BTreeMap<_, _> =
                argument.map(|name| (name, json!({"type": "string"}))).into_iter().collect();
            let required: Vec<_> = argument.into_iter().collect();
            json!({"type": "object", "properties": properties, "required": required}).as_object().cloned().unwrap()
        };
        let own = [
            ("ask", "Asks the user.", Some("question")),
            ("sample", "Asks the model.", Some("question")),
            ("roots", "Asks for the roots.", None),
            ("chat", "Asks the user, and then the model, which needs the first answer.", None),
            ("bump", "Changes the counter.", None),
            ("grow", "Adds a tool.", Some("name")),
        ];
        let mut tools: Vec<_> =
            own.into_iter().map(|(name, text, argument)| Tool::new(name, text, schema(argument))).collect();
        let grown = self.0.grown.lock().unwrap().clone();
        tools.extend(grown.into_iter().map(|name| Tool::new(name, "Was added.", schema(None))));
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let argument = |name| {
            let given = request.arguments.as_ref().and_then(|arguments| arguments.get(name));
            given.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let text = |text| Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into());
        match request.name.as_ref() {
            "bump" => return text(self.bump().await),
            "grow" => return text(self.grow(&argument("name")).await),
            _ => {}
        }
        let modern = context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
        let mut answers = request.input_responses.clone().unwrap_or_default();
        if answers.contains_key("said") && request.name == "chat" && request.request_state.as_deref() != Some("asked") {
            return text(format!("state {:?}", request.request_state));
        }
        loop {
            match Self::round(&request.name, &argument("question"), &answers) {
                None => return text("grown".to_owned()),
                Some(Outcome::Text(found)) => return text(found),
                Some(Outcome::Ask(key, asked, state)) if modern => {
                    let requests = InputRequests::from([(key.to_owned(), asked)]);
                    return Ok(InputRequiredResult::new(Some(requests), state.map(str::to_owned)).into());
                }
                Some(Outcome::Ask(key, asked, _)) => {
                    answers.insert(key.to_owned(), push(&context.peer, asked).await?);
                }
            }
        }
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let to = PromptArgument::new("to").with_required(true);
        Ok(ListPromptsResult::with_all_items(vec![Prompt::new("letter", Some("Asks for a letter."), Some(vec![to]))]))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let to = request.arguments.as_ref().and_then(|arguments| arguments.get("to"));
        let to = to.and_then(Value::as_str).unwrap_or_default();
        let message = PromptMessage::new_text(Role::User, format!("Write to {to}."));
        Ok(GetPromptResult::new(vec![message]).into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resources = vec![Resource::new(FIXED, "fixed"), Resource::new(COUNTER, "counter")];
        Ok(ListResourcesResult::with_all_items(resources))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let template = ResourceTemplate::new(format!("{ABOUT}{{topic}}"), "about");
        Ok(ListResourceTemplatesResult::with_all_items(vec![template]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let text = match (request.uri.as_str(), request.uri.strip_prefix(ABOUT)) {
            (FIXED, _) => "fixed by rmcp".to_owned(),
            (COUNTER, _) => self.0.count.lock().unwrap().to_string(),
            (_, Some(topic)) => format!("about {topic}"),
            _ => return Err(ErrorData::resource_not_found("no such resource", Some(json!({"uri": request.uri})))),
        };
        Ok(ReadResourceResult::new(vec![ResourceContents::text(text, request.uri)]).into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let known = if request.argument.name == "to" { PEOPLE } else { TOPICS };
        let fitting = known.iter().filter(|value| value.starts_with(&request.argument.value));
        let values = fitting.map(|value| (*value).to_owned()).collect();
        let completion =
            CompletionInfo::new(values).map_err(|error| ErrorData::internal_error(error.to_owned(), None))?;
        Ok(CompleteResult::new(completion))
    }

    async fn subscribe(&self, _: SubscribeRequestParams, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.0.subscribers.lock().unwrap().push(context.peer);
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        // Told of one change more, a client does no harm; peers cannot be compared.
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = self.0.changes.subscribe();
        loop {
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                change = changes.recv() => {
                    // The filter refuses what was not asked for.
                    let _ = match change {
                        Ok(Change::Counter) => context.sink().notify_resource_updated(COUNTER).await,
                        Ok(Change::Tools) => context.sink().notify_tool_list_changed().await,
                        Err(_) => return Ok(()),
                    };
                }
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("expected a port")?.parse()?;
    let server = Server(Arc::new(Shared {
        count: Mutex::default(),
        grown: Mutex::default(),
        sessions: Mutex::default(),
        subscribers: Mutex::default(),
        changes: broadcast::channel(64).0,
    }));
    let make = move || Ok(server.clone());
    let config = StreamableHttpServerConfig::default();
    let service = StreamableHttpService::new(make, Arc::<LocalSessionManager>::default(), config);
    let router = axum::Router::new().nest_service("/mcp", service);
    axum::serve(tokio::net::TcpListener::bind(("127.0.0.1", port)).await?, router).await?;
    Ok(())
}
