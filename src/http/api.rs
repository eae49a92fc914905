//! The REST endpoints: clients, their servers, and who may use what. Design 7.
//!
//! One function an endpoint, in the order of [`Endpoint`]. What is allowed is decided by `policy`, what is done is done
//! by `gateway`; here requests are read and answers are written.

mod error;
mod origin;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};

use self::error::ApiError;
pub(super) use self::origin::Registrations;
use super::response::{Body, json};
use crate::gateway::{self, Authority, Gateway, Granted, Principal, SeenServer, Snapshot, Subject, TOKEN_LIFETIME};
use crate::policy::registry::{Grant, Patterns, Who};
use crate::policy::{Caller, ClientId, Edit, EditError, Registry, ServerId};
use crate::time::Timestamp;
use crate::wire::config::{Place, Severity};
use crate::wire::mcp::{ListKind, MODERN, ProtocolVersion};
use crate::wire::rest::{self, answer, query};

/// An endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /register_client`
    RegisterClient,
    /// `POST /refresh_token`
    RefreshToken,
    /// `POST /register_mcp_server`
    RegisterServer,
    /// `POST /unregister_mcp_server`
    UnregisterServer,
    /// `POST /update_access_control`
    UpdateAccess,
    /// `GET /get_access_control`
    GetAccess,
    /// `GET /get_tools`
    GetTools,
    /// `GET /explain`
    Explain,
    /// `GET /status`
    Status,
    /// `GET /clients`
    Clients,
    /// `GET /servers`
    Servers,
    /// `POST /unregister_client`
    UnregisterClient,
}

impl Endpoint {
    /// Every endpoint with its path.
    pub const ALL: [(&str, Self); 12] = [
        ("/register_client", Self::RegisterClient),
        ("/refresh_token", Self::RefreshToken),
        ("/register_mcp_server", Self::RegisterServer),
        ("/unregister_mcp_server", Self::UnregisterServer),
        ("/update_access_control", Self::UpdateAccess),
        ("/get_access_control", Self::GetAccess),
        ("/get_tools", Self::GetTools),
        ("/explain", Self::Explain),
        ("/status", Self::Status),
        ("/clients", Self::Clients),
        ("/servers", Self::Servers),
        ("/unregister_client", Self::UnregisterClient),
    ];

    /// Its path.
    #[must_use]
    pub fn path(self) -> &'static str {
        Self::ALL.iter().find(|(_, endpoint)| *endpoint == self).map_or("", |(path, _)| *path)
    }

    /// Whether it changes something, and so takes POST.
    #[must_use]
    pub fn changes(self) -> bool {
        match self {
            Self::RegisterClient
            | Self::RefreshToken
            | Self::RegisterServer
            | Self::UnregisterServer
            | Self::UpdateAccess
            | Self::UnregisterClient => true,
            Self::GetAccess | Self::GetTools | Self::Explain | Self::Status | Self::Clients | Self::Servers => false,
        }
    }
}

/// A request, as far as every endpoint needs it.
pub(super) struct Call<'a> {
    /// The gateway.
    pub(super) gateway: &'a Gateway,
    /// The policy under which the request is served.
    pub(super) snapshot: Snapshot,
    /// What the URL says after `?`.
    pub(super) query: Option<&'a str>,
    /// The body.
    pub(super) body: Bytes,
    /// Time since the epoch.
    pub(super) now: Duration,
}

type Served = Result<Response<Body>, ApiError>;

/// Serves somebody who has no token yet.
pub(super) async fn register_client(
    call: Call<'_>,
    registrations: &Registrations,
    peer: IpAddr,
    headers: &HeaderMap,
    listen: SocketAddr,
) -> Response<Body> {
    let serve = async {
        no_query(&call)?;
        let label = rest::register_client(&call.body)?;
        let settings = call.snapshot.registry().settings();
        if !settings.registration_open(listen) {
            return Err(EditError::Closed.into());
        }
        let address = origin::address_of(peer, headers, &settings.trusted_proxies);
        let most = settings.limits.registrations_per_minute;
        registrations.note(address, call.now, most).map_err(ApiError::TooOften)?;
        Ok(token(&call.gateway.register_client(label, listen, call.now).await?))
    };
    finish(serve.await)
}

/// Serves a client.
pub(super) async fn serve(call: Call<'_>, endpoint: Endpoint, principal: &Principal) -> Response<Body> {
    let caller = principal.caller();
    let Some(_running) = call.gateway.rest_slot(&call.snapshot, principal) else {
        return finish(Err(ApiError::Overloaded));
    };
    let served = match endpoint {
        Endpoint::RegisterClient => Err(EditError::Closed.into()),
        Endpoint::RefreshToken => refresh_token(&call, caller),
        Endpoint::RegisterServer => register_server(&call, caller).await,
        Endpoint::UnregisterServer => unregister_server(&call, caller).await,
        Endpoint::UpdateAccess => update_access(&call, caller).await,
        Endpoint::GetAccess => get_access(&call, caller),
        Endpoint::GetTools => get_tools(&call, caller).await,
        Endpoint::Explain => explain(&call, caller).await,
        Endpoint::Status => status(&call, caller),
        Endpoint::Clients => clients(&call, caller),
        Endpoint::Servers => servers(&call, caller),
        Endpoint::UnregisterClient => unregister_client(&call, caller).await,
    };
    finish(served.map_err(|error| if is_admin(&call, caller) { error.in_full() } else { error }))
}

fn finish(served: Served) -> Response<Body> {
    let mut answer = served.unwrap_or_else(|error| error.answer());
    // Tokens, and what is allowed at this moment, are not for any cache.
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn ok(answer: &impl serde::Serialize) -> Response<Body> {
    json(StatusCode::OK, answer::to_json(answer))
}

fn done(message: String) -> Response<Body> {
    ok(&answer::Message { message })
}

fn token(granted: &Granted) -> Response<Body> {
    let expires_in_seconds = TOKEN_LIFETIME.as_secs();
    ok(&answer::Token { client_id: granted.client.as_str(), auth_token: &granted.token, expires_in_seconds })
}

fn no_query(call: &Call<'_>) -> Result<(), ApiError> {
    parameters::<0>(call, []).map(drop)
}

/// The values of these parameters; others are refused, and so is one that occurs twice.
fn parameters<const N: usize>(call: &Call<'_>, names: [&str; N]) -> Result<[Option<String>; N], ApiError> {
    let mut values = [const { None }; N];
    for (name, value) in query::parameters(call.query.unwrap_or_default()).map_err(ApiError::Query)? {
        let slot = names.iter().position(|known| *known == name).and_then(|at| values.get_mut(at));
        match slot {
            Some(slot @ None) => *slot = Some(value),
            Some(Some(_)) => return Err(ApiError::Query(format!("query parameter `{name}` occurs twice"))),
            None => return Err(ApiError::Query(format!("unknown query parameter `{}`", name.escape_debug()))),
        }
    }
    Ok(values)
}

async fn change(call: &Call<'_>, caller: &Caller, edit: Edit) -> Result<(), ApiError> {
    Ok(call.gateway.change(edit, Authority::Caller(caller.clone())).await?)
}

fn is_admin(call: &Call<'_>, caller: &Caller) -> bool {
    call.snapshot.registry().is_admin(caller.client())
}

fn admins_only(call: &Call<'_>, caller: &Caller) -> Result<(), ApiError> {
    if is_admin(call, caller) { no_query(call) } else { Err(ApiError::AdminsOnly) }
}

fn refresh_token(call: &Call<'_>, caller: &Caller) -> Served {
    no_query(call)?;
    rest::nothing(&call.body)?;
    let granted = call.gateway.refresh_token(&call.snapshot, caller, call.now);
    granted.map(|granted| token(&granted)).ok_or(ApiError::NotRefreshable)
}

async fn register_server(call: &Call<'_>, caller: &Caller) -> Served {
    no_query(call)?;
    let server = rest::register_server(&call.body)?;
    call.gateway.check_address(&call.snapshot, caller.client(), &server).map_err(ApiError::Address)?;
    let id = call.gateway.register_server(caller, server).await?;
    Ok(ok(&answer::ServerName { server_id: id.as_str() }))
}

async fn unregister_server(call: &Call<'_>, caller: &Caller) -> Served {
    no_query(call)?;
    let server = ServerId::new(&rest::id(&call.body, "server_id")?);
    change(call, caller, Edit::RemoveServer { by: caller.client().clone(), server: server.clone() }).await?;
    Ok(done(format!("Successfully unregistered server '{server}'")))
}

async fn update_access(call: &Call<'_>, caller: &Caller) -> Served {
    no_query(call)?;
    let update = rest::update_access(&call.body)?;
    let client = match update.client.as_str() {
        "*" => Who::Everyone,
        name => Who::Client(ClientId::new(name)),
    };
    let access = update.access.into_iter().map(|(server, tools)| (ServerId::new(&server), tools)).collect();
    change(call, caller, Edit::SetAccess { by: caller.client().clone(), client: client.clone(), access }).await?;
    Ok(done(format!("Successfully updated access control for client '{client}'")))
}

async fn unregister_client(call: &Call<'_>, caller: &Caller) -> Served {
    no_query(call)?;
    let client = ClientId::new(&rest::id(&call.body, "client_id")?);
    change(call, caller, Edit::RemoveClient { by: caller.client().clone(), client: client.clone() }).await?;
    Ok(done(format!("Successfully unregistered client '{client}'")))
}

fn get_access(call: &Call<'_>, caller: &Caller) -> Served {
    no_query(call)?;
    let registry = call.snapshot.registry();
    let owned = registry.owned_by(caller.client());
    let mut by_client: Vec<(String, answer::Ordered<Vec<String>>)> = Vec::new();
    let mut places: HashMap<&Who, usize> = HashMap::new();
    for server in &owned {
        for (who, grant) in registry.grants_on(&server.id) {
            let tools = texts(&grant.tools);
            if tools.is_empty() {
                continue;
            }
            let at = *places.entry(who).or_insert(by_client.len());
            if at == by_client.len() {
                by_client.push((who.to_string(), answer::Ordered::default()));
            }
            if let Some((_, servers)) = by_client.get_mut(at) {
                servers.0.push((server.id.to_string(), tools));
            }
        }
    }
    let owned_servers = owned.iter().map(|server| server.id.to_string()).collect();
    Ok(ok(&answer::Access { owned_servers, access_control: answer::Ordered(by_client) }))
}

fn texts(patterns: &Patterns) -> Vec<String> {
    patterns.texts().map(str::to_owned).collect()
}

async fn get_tools(call: &Call<'_>, caller: &Caller) -> Served {
    no_query(call)?;
    let (registry, client) = (call.snapshot.registry(), caller.client());
    let seen = call.gateway.seen_tools(&call.snapshot, client).await;
    let admin = is_admin(call, caller);
    let mut counts: HashMap<&ServerId, usize> = HashMap::new();
    for tool in &seen {
        *counts.entry(&tool.server).or_default() += 1;
    }
    let servers = registry.servers_of(client).into_iter().map(|server| {
        let owner = server.owner == *client;
        let SeenServer { health, error, .. } = call.gateway.seen_server(server);
        answer::ToolServer {
            server: server.id.to_string(),
            owner,
            state: health.to_string(),
            tools: counts.get(&server.id).copied().unwrap_or_default(),
            error: error.filter(|_| owner || admin),
        }
    });
    let servers = servers.collect();
    let tools = seen.iter().map(|tool| answer::Tool {
        name: tool.name.clone(),
        server: tool.server.to_string(),
        why: tool.rule.to_string(),
        state: tool.health.to_string(),
    });
    Ok(ok(&answer::Tools { tools: tools.collect(), servers }))
}

async fn explain(call: &Call<'_>, caller: &Caller) -> Served {
    let [client, server, tool, prompt, resource] =
        parameters(call, ["client", "server", "tool", "prompt", "resource"])?;
    let kinds = [(ListKind::Tools, tool), (ListKind::Prompts, prompt), (ListKind::Resources, resource)];
    let mut asked = kinds.into_iter().filter_map(|(kind, name)| Some(Subject::new(kind, name?)));
    let subject = match (asked.next(), asked.next()) {
        (Some(subject), None) if !subject.name.is_empty() => subject,
        _ => return Err(ApiError::Query("expected one of `tool`, `prompt` and `resource` in the query".to_owned())),
    };
    let registry = call.snapshot.registry();
    let client = client.map_or_else(|| caller.client().clone(), |client| ClientId::new(&client));
    let server = server.map(|server| ServerId::new(&server));
    let owns = |server: &ServerId| registry.server(server).is_some_and(|s| s.owner == *caller.client());
    let admin = is_admin(call, caller);
    if client != *caller.client() && !admin && !server.as_ref().is_some_and(owns) {
        return Err(ApiError::NotAboutOthers);
    }
    let usable: Vec<&ServerId> = registry.servers_of(caller.client()).into_iter().map(|server| &server.id).collect();
    let may_know = |server: &ServerId| admin || usable.contains(&server);
    let explanation = call.gateway.explain(&call.snapshot, &client, &subject, server.as_ref(), may_know).await;
    Ok(ok(&explained(client.to_string(), subject, explanation)))
}

fn explained(client: String, subject: Subject, explanation: gateway::Explanation) -> answer::Explanation {
    let verdict = |yes| if yes { "yes" } else { "no" };
    let about = |name| answer::About::new(subject.kind, name);
    let candidates = explanation.candidates.into_iter().map(|candidate| answer::Candidate {
        server: candidate.server.to_string(),
        about: about(candidate.name),
        verdict: verdict(candidate.allowed),
        rule: candidate.reason.about(subject.kind),
        place: candidate.reason.place().map(place),
        state: candidate.health.to_string(),
    });
    answer::Explanation {
        client,
        about: about(subject.name.clone()),
        verdict: verdict(explanation.server.is_some()),
        server: explanation.server.map(|server| server.to_string()),
        rule: explanation.reason.about(subject.kind),
        place: explanation.reason.place().map(place),
        candidates: candidates.collect(),
    }
}

fn place(place: Place) -> answer::Place {
    answer::Place { line: place.line, column: place.column }
}

fn status(call: &Call<'_>, caller: &Caller) -> Served {
    admins_only(call, caller)?;
    let registry = call.snapshot.registry();
    let loaded = call.gateway.loaded();
    let problems = loaded.problems.into_iter().map(|problem| answer::Problem {
        severity: match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        path: problem.path,
        message: problem.message,
        line: problem.place.map(|place| place.line),
        column: problem.place.map(|place| place.column),
        hint: problem.hint,
    });
    let config = answer::Configuration {
        path: call.gateway.config_path().to_owned(),
        loaded: Timestamp(loaded.at).to_string(),
        generation: call.snapshot.generation(),
        in_force: loaded.refused.is_none(),
        problems: problems.collect(),
    };
    let limits = registry.settings().limits.named().into_iter().map(|(key, value)| (key.to_owned(), value));
    Ok(ok(&answer::Status {
        version: env!("CARGO_PKG_VERSION"),
        started: Timestamp(call.gateway.started()).to_string(),
        config,
        clients: registry.clients().len(),
        servers: registry.servers().len(),
        protocol_versions: ProtocolVersion::ALL.map(ProtocolVersion::as_str).into_iter().chain([MODERN]).collect(),
        limits: answer::Ordered(limits.collect()),
    }))
}

fn clients(call: &Call<'_>, caller: &Caller) -> Served {
    admins_only(call, caller)?;
    let registry = call.snapshot.registry();
    let owned = |client: &ClientId| registry.owned_by(client).into_iter().map(|server| server.id.to_string()).collect();
    let clients = registry.clients().map(|client| answer::Client {
        client_id: client.id.to_string(),
        admin: client.admin,
        label: client.label.clone(),
        registered: client.registered.map(|at| Timestamp(at).to_string()),
        valid_from: client.valid_from.map(|at| Timestamp(at).to_string()),
        servers: owned(&client.id),
    });
    Ok(ok(&answer::Clients { clients: clients.collect() }))
}

fn servers(call: &Call<'_>, caller: &Caller) -> Served {
    admins_only(call, caller)?;
    let registry = call.snapshot.registry();
    let servers = registry.servers().map(|server| described(registry, call.gateway.seen_server(server)));
    Ok(ok(&answer::Servers { servers: servers.collect() }))
}

fn described(registry: &Registry, seen: SeenServer) -> answer::Server {
    let SeenServer { server, health, error, offers } = seen;
    let grant = |(who, grant): (&Who, &Grant)| {
        let (tools, deny) = (texts(&grant.tools), texts(&grant.deny));
        let (prompts, resources) = (texts(&grant.prompts), texts(&grant.resources));
        (who.to_string(), answer::Grant { tools, deny, prompts, resources })
    };
    answer::Server {
        server_id: server.id.to_string(),
        url: server.endpoint.to_string(),
        owner: server.owner.to_string(),
        registered_by: server.registered_by.as_ref().map(ToString::to_string),
        tool_prefix: server.tool_prefix.clone(),
        headers: server.headers.iter().map(|(name, _)| name.to_owned()).collect(),
        state: health.to_string(),
        error,
        tools: offers,
        grants: answer::Ordered(registry.grants_on(&server.id).map(grant).collect()),
    }
}
