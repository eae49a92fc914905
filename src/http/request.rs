//! What is checked of a request before anybody looks at what it asks for.
//!
//! Source: protocol.md 2.1; RFC 9110 (`Accept`, `Authorization`, `Host`), RFC 9112 3.2, RFC 6750.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING,
};
use hyper::http::uri::{Authority, Uri};
use tokio::time::{Sleep, sleep};

use super::response::Refusal;
use crate::budget::Holding;
use crate::wire::config::Settings;
use crate::wire::gather::Gather;
use crate::wire::skim::Skim;

/// Bytes of a body that are read whatever is held already: lists, pings and what calls requests off must go on.
const SMALL: usize = 16 * 1024;

/// Checks that there is one `Host`, and that it and the authority of an absolute target are served here.
///
/// SECURITY: a page that had its own name resolve to this machine (DNS rebinding) sends that name as `Host`.
///
/// # Errors
/// [`Refusal::BadHost`], [`Refusal::Host`].
pub fn check_host(headers: &HeaderMap, target: &Uri, settings: &Settings) -> Result<(), Refusal> {
    let host = only(headers, &HOST).ok_or(Refusal::BadHost)?;
    if target.authority().is_none() && is_plainly_loopback(host.as_bytes()) {
        return Ok(());
    }
    let host: Authority = host.to_str().ok().and_then(|h| h.parse().ok()).ok_or(Refusal::BadHost)?;
    let authorities = [Some(&host), target.authority()];
    let served = authorities.into_iter().flatten().all(|a| is_loopback(a.host()) || is_listed(a, settings));
    if served { Ok(()) } else { Err(Refusal::Host) }
}

/// Whether one of `allowed_hosts` is this authority: with the port, if it names one.
fn is_listed(authority: &Authority, settings: &Settings) -> bool {
    let is = |allowed: &String| {
        allowed.eq_ignore_ascii_case(authority.as_str()) || allowed.eq_ignore_ascii_case(authority.host())
    };
    !authority.as_str().contains('@') && settings.allowed_hosts.iter().any(is)
}

/// Whether an authority is one of the two loopback names that nearly everybody uses. Others may be loopback as well.
fn is_plainly_loopback(authority: &[u8]) -> bool {
    let rest = authority.strip_prefix(b"127.0.0.1").or_else(|| authority.strip_prefix(b"localhost"));
    match rest {
        Some([b':', port @ ..]) => (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit),
        Some(rest) => rest.is_empty(),
        None => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|a| a.is_loopback())
}

fn names_loopback(authority: &str) -> bool {
    authority.parse::<Authority>().is_ok_and(|a| is_loopback(a.host()))
}

/// Checks the `Origin` of a browser's request; returns it, to be named in the answer.
///
/// Besides the listed ones, loopback origins are served where the gateway itself is addressed by a loopback name.
/// SECURITY: elsewhere the page would be one on the visitor's machine, which is not the gateway's.
///
/// # Errors
/// [`Refusal::Origin`] for one that is neither listed nor a loopback origin.
pub fn check_origin(headers: &HeaderMap, settings: &Settings) -> Result<Option<HeaderValue>, Refusal> {
    let origin = match single(headers, &ORIGIN) {
        Single::Absent => return Ok(None),
        Single::One(origin) => origin,
        Single::Repeated => return Err(Refusal::Origin),
    };
    let text = origin.to_str().map_err(|_| Refusal::Origin)?;
    let listed = settings.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(text));
    let authority = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = only(headers, &HOST).and_then(|h| h.to_str().ok());
    let own = [authority, host].into_iter().all(|a| a.is_some_and(names_loopback));
    if listed || own { Ok(Some(origin.clone())) } else { Err(Refusal::Origin) }
}

/// The bearer token.
///
/// # Errors
/// [`Refusal::NotAuthenticated`] if there is none, or more than one.
pub fn bearer_token(headers: &HeaderMap) -> Result<&str, Refusal> {
    let value = only(headers, &AUTHORIZATION).and_then(|v| v.to_str().ok()).ok_or(Refusal::NotAuthenticated)?;
    let (scheme, token) = value.split_at_checked("bearer ".len()).ok_or(Refusal::NotAuthenticated)?;
    let token = token.trim();
    let usable = scheme.eq_ignore_ascii_case("bearer ") && !token.is_empty() && !token.bytes().any(|b| b == b' ');
    if usable { Ok(token) } else { Err(Refusal::NotAuthenticated) }
}

/// Checks that the body is JSON by its own word.
///
/// # Errors
/// [`Refusal::MediaType`].
pub fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = only(headers, &CONTENT_TYPE).ok_or(Refusal::MediaType)?;
    if value.as_bytes() == b"application/json" {
        return Ok(());
    }
    let value = value.to_str().map_err(|_| Refusal::MediaType)?;
    let mut parameters = value.split(';').map(str::trim);
    let json = parameters.next().is_some_and(|t| t.eq_ignore_ascii_case("application/json"));
    let charset = |p: &str| {
        p.split_once('=')
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
            .map(|(_, c)| c.trim().trim_matches('"').to_owned())
    };
    let utf8 =
        parameters.filter_map(charset).all(|c| c.eq_ignore_ascii_case("utf-8") || c.eq_ignore_ascii_case("utf8"));
    if json && utf8 { Ok(()) } else { Err(Refusal::MediaType) }
}

/// Checks that the client takes both JSON and event streams; `*/*` is both, and so is no `Accept` at all.
///
/// # Errors
/// [`Refusal::NotAcceptable`].
pub fn check_accept(headers: &HeaderMap) -> Result<(), Refusal> {
    let (json, events) = accepted(headers)?;
    if json && events { Ok(()) } else { Err(Refusal::NotAcceptable) }
}

/// Checks that the client takes an event stream.
///
/// # Errors
/// [`Refusal::NotAcceptable`].
pub fn check_accept_events(headers: &HeaderMap) -> Result<(), Refusal> {
    let (_, events) = accepted(headers)?;
    if events { Ok(()) } else { Err(Refusal::NotAcceptable) }
}

/// Whether the client takes JSON, and whether it takes event streams. One that does not say so takes everything.
fn accepted(headers: &HeaderMap) -> Result<(bool, bool), Refusal> {
    let (mut none, mut json, mut events) = (true, false, false);
    // Several header lines are one list (RFC 9110 5.3); the Python SDK sends two.
    for value in headers.get_all(ACCEPT) {
        none = false;
        if value.as_bytes() == b"application/json, text/event-stream" {
            (json, events) = (true, true);
            continue;
        }
        for range in value.to_str().map_err(|_| Refusal::NotAcceptable)?.split(',') {
            let (range, parameters) = range.split_once(';').unwrap_or((range, ""));
            if is_never(parameters) {
                continue;
            }
            let range = range.trim().to_ascii_lowercase();
            json |= matches!(range.as_str(), "application/json" | "application/*" | "*/*");
            events |= matches!(range.as_str(), "text/event-stream" | "text/*" | "*/*");
        }
    }
    Ok((none || json, none || events))
}

/// Whether a media range's parameters say `q=0`.
fn is_never(parameters: &str) -> bool {
    let quality = parameters.split(';').filter_map(|p| p.trim().strip_prefix("q=")).next();
    quality.is_some_and(|q| q.trim().parse() == Ok(0.0))
}

/// Checks that the body is framed in a way that everybody reads alike.
///
/// SECURITY: a coding that a proxy in front reads otherwise would let one request hide in another.
///
/// # Errors
/// [`Refusal::TransferCoding`].
pub fn check_framing(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let plain = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if plain { Ok(()) } else { Err(Refusal::TransferCoding) }
}

/// Reads the whole body, which counts as held for as long as any part of it is kept.
///
/// # Errors
/// [`Refusal::TooLarge`], [`Refusal::TooSlow`], [`Refusal::Broken`], [`Refusal::Overloaded`].
pub async fn read_body(
    body: &mut Incoming,
    limit: usize,
    within: Duration,
    mut holding: Holding,
) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Refusal::TooLarge(limit));
    }
    let (mut gather, mut patience) = (Gather::new(limit), Patience::new(within));
    while let Some(chunk) = next_chunk(body, &mut patience).await? {
        gather.push(chunk).map_err(|too_large| Refusal::TooLarge(too_large.limit))?;
        if gather.held() <= SMALL {
            holding.set(gather.held());
        } else if holding.resize(gather.held()).is_err() {
            drop(holding);
            // Boxed because it is rare and large.
            return Err(Refusal::Overloaded(Box::pin(skim(body, gather, limit, patience)).await?));
        }
        // Known from the length that was announced, without being asked once more.
        if body.is_end_stream() {
            break;
        }
    }
    Ok(holding.keep(gather.finish()))
}

/// Reads the rest of a body that there is no room for, and keeps what it takes to answer the message in it.
async fn skim(
    body: &mut Incoming,
    mut gather: Gather,
    limit: usize,
    mut patience: Patience,
) -> Result<Vec<u8>, Refusal> {
    let (mut skim, mut size) = (Skim::default(), gather.held());
    skim.push(&gather.finish());
    while let Some(chunk) = next_chunk(body, &mut patience).await? {
        size += chunk.len();
        if size > limit {
            return Err(Refusal::TooLarge(limit));
        }
        skim.push(&chunk);
    }
    Ok(skim.finish())
}

/// How long a body is waited for. hyper hands over nothing before it was asked, even if all is there, so that the clock is
/// set only for whoever has to wait a second time.
struct Patience {
    within: Duration,
    asked: bool,
    over: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(within: Duration) -> Self {
        Self { within, asked: false, over: None }
    }

    /// Waits on, or fails.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        if !std::mem::replace(&mut self.asked, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let over = self.over.get_or_insert_with(|| Box::pin(sleep(self.within)));
        over.as_mut().poll(cx).map(|()| Refusal::TooSlow(self.within.as_secs()))
    }
}

async fn next_chunk(body: &mut Incoming, patience: &mut Patience) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.transpose().map_err(|_| Refusal::Broken)),
            Poll::Pending => patience.poll(cx).map(Err),
        });
        match frame.await? {
            None => return Ok(None),
            // Trailers are of no use here.
            Some(frame) => match frame.into_data() {
                Ok(chunk) => return Ok(Some(chunk)),
                Err(_) => continue,
            },
        }
    }
}

/// A header that must not be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Single<'a> {
    /// It is not there.
    Absent,
    /// It is there once.
    One(&'a HeaderValue),
    /// It is there several times.
    Repeated,
}

/// Looks for a header that must not be repeated.
#[must_use]
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Single<'a> {
    // Nearly always there is nothing at all that is repeated.
    if headers.keys_len() == headers.len() {
        return headers.get(name).map_or(Single::Absent, Single::One);
    }
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Single::Absent,
        (Some(value), None) => Single::One(value),
        (Some(_), Some(_)) => Single::Repeated,
    }
}

/// The value of a header that must not be repeated; `None` if it is absent or is repeated.
#[must_use]
pub fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    match single(headers, name) {
        Single::One(value) => Some(value),
        Single::Absent | Single::Repeated => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_origins_are_served_only_where_the_gateway_is_addressed_so() {
        #[track_caller]
        fn check(host: &'static str, origin: &'static str, listed: &[&str], expected: bool) {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            let allowed_origins = listed.iter().map(|&origin| origin.to_owned()).collect();
            let settings = Settings { allowed_origins, ..Settings::default() };
            let found = check_origin(&headers, &settings);
            assert_eq!(found.is_ok(), expected, "{host} {origin} {listed:?}");
        }
        check("localhost:9000", "http://localhost:6274", &[], true);
        check("127.0.0.1:9000", "https://[::1]", &[], true);
        check("localhost", "https://evil.example.com", &[], false);
        check("mcp.example.com", "http://localhost:6274", &[], false);
        check("mcp.example.com", "http://127.0.0.1", &["https://mcp.example.com"], false);
        check("localhost.example.com", "http://localhost", &[], false);
        check("mcp.example.com", "https://mcp.example.com", &["https://mcp.example.com"], true);
        check("mcp.example.com", "http://localhost:6274", &["http://localhost:6274"], true);
        check("mcp.example.com", "http://localhost:6275", &["http://localhost:6274"], false);
    }

    #[test]
    fn the_loopback_names_that_are_told_at_a_glance_are_loopback_names() {
        for host in ["127.0.0.1", "localhost", "127.0.0.1:9000", "localhost:1", "localhost:99999"] {
            assert!(is_plainly_loopback(host.as_bytes()), "{host}");
        }
        for host in ["", "127.0.0.11", "localhost.", "localhost:", "localhost:x", "localhost:1@evil.com", "127.0.0.1.a"]
        {
            assert!(!is_plainly_loopback(host.as_bytes()), "{host}");
        }
        assert!(!is_plainly_loopback(b"localhost:123456"));
    }

    #[test]
    fn a_request_without_a_host_has_no_loopback_origin() {
        let mut headers = HeaderMap::new();
        assert!(check_origin(&headers, &Settings::default()).is_ok_and(|origin| origin.is_none()));
        headers.insert(ORIGIN, HeaderValue::from_static("http://localhost"));
        assert!(check_origin(&headers, &Settings::default()).is_err());
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert!(check_origin(&headers, &Settings::default()).is_ok());
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert!(check_origin(&headers, &Settings::default()).is_err());
    }
}
