//! One connection of a client.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use mcp_x_bench::mcp::{Era, LEGACY, METHOD, MODERN, NAME, SESSION, VERSION};
use tokio::net::TcpStream;

use crate::ask::{self, Plan};
use crate::check::excerpt;

/// Where to, and as whom.
pub(crate) struct Target {
    /// Host and port, and the path.
    pub(crate) host: String,
    pub(crate) path: Uri,
    pub(crate) token: String,
}

/// A connection, in order.
pub(crate) struct Client {
    link: SendRequest<Full<Bytes>>,
    path: Uri,
    /// What every request says.
    headers: HeaderMap,
}

impl Client {
    /// Connects; asks nothing.
    ///
    /// # Errors
    ///
    /// There is no connection to be had.
    pub(crate) async fn connect(target: &Target) -> Result<Self, String> {
        let stream = TcpStream::connect(&target.host).await.map_err(|error| format!("{}: {error}", target.host))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (link, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::task::spawn_local(driver);
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "not a header value".to_owned());
        let mut headers = HeaderMap::new();
        headers.insert(HOST, value(&target.host)?);
        headers.insert(AUTHORIZATION, value(&format!("Bearer {}", target.token))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        Ok(Self { link, path: target.path.clone(), headers })
    }

    /// Does what clients of this era do before their first request.
    ///
    /// # Errors
    ///
    /// The handshake is refused.
    pub(crate) async fn begin(&mut self, era: Era) -> Result<(), String> {
        let version = HeaderValue::from_static(if era == Era::Modern { MODERN } else { LEGACY[0] });
        if era != Era::Modern {
            let client = r#""capabilities":{},"clientInfo":{"name":"bench-load","version":"0"}"#;
            let params = format!(r#""protocolVersion":"{}",{client}"#, LEGACY[0]);
            let (answer, body) = self.post(ask::request(0, "initialize", &params), None).await?;
            if answer.status() != StatusCode::OK {
                return Err(format!("initialize: expected 200, found {} {}", answer.status(), excerpt(&body)));
            }
            if let Some(session) = answer.headers().get(SESSION) {
                self.headers.insert(SESSION, session.clone());
            }
        }
        self.headers.insert(VERSION, version);
        if era != Era::Modern {
            let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned();
            let (answer, body) = self.post(initialized, None).await?;
            if !answer.status().is_success() {
                return Err(format!("initialized: expected 202, found {} {}", answer.status(), excerpt(&body)));
            }
        }
        Ok(())
    }

    /// Asks the request with this id and checks its answer.
    ///
    /// # Errors
    ///
    /// What is wrong with the answer.
    pub(crate) async fn exchange(&mut self, plan: &Plan, id: u64) -> Result<(), String> {
        let ask = plan.ask(id);
        let mirrored = (plan.era == Era::Modern).then_some((ask.method, ask.name.as_deref()));
        let (answer, body) = self.post(ask.body, mirrored).await?;
        if answer.status() != StatusCode::OK {
            return Err(format!("expected 200, found {} {}", answer.status(), excerpt(&body)));
        }
        let kind = answer.headers().get(CONTENT_TYPE);
        let stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        plan.check(id, stream, &body)
    }

    /// Posts a message and reads the answer to its end; `mirrored` is the method, and the name of the tool.
    async fn post(
        &mut self,
        message: String,
        mirrored: Option<(&'static str, Option<&str>)>,
    ) -> Result<(Response<()>, Bytes), String> {
        let mut request = Request::new(Full::new(Bytes::from(message)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        self.headers.clone_into(request.headers_mut());
        if let Some((method, name)) = mirrored {
            request.headers_mut().insert(METHOD, HeaderValue::from_static(method));
            if let Some(Ok(name)) = name.map(HeaderValue::from_str) {
                request.headers_mut().insert(NAME, name);
            }
        }
        self.send(request).await.map_err(|error| format!("the connection broke: {error}"))
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(Response<()>, Bytes), hyper::Error> {
        self.link.ready().await?;
        let (head, body): (_, Incoming) = self.link.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((Response::from_parts(head, ()), body))
    }
}
