//! Messages as real clients and servers write them, from the transcripts under `fixtures/`.

use std::error::Error;
use std::fs;
use std::path::Path;

use hyper::body::Bytes;
use mcp_x::wire::mcp::Era;
use serde_json::Value;

/// Deepest nesting that is read, the default of `max_json_depth`.
pub(crate) const DEPTH: usize = 128;
/// Bytes of a large result.
const LARGE: usize = 64 * 1024;
/// The text of the sample's result, which a larger one takes the place of.
const SUM: &str = r#""text":"5""#;

/// A call of the tool `add` by a client of this era, and the answer of a server of the same.
pub(crate) fn call(era: Era) -> Result<(Bytes, Bytes), Box<dyn Error>> {
    let name = match era {
        Era::Legacy => "python-1-to-fastmcp-stateless-json.json",
        Era::Modern => "python-2-to-fastmcp4-stateless-json.json",
    };
    let transcript: Value = serde_json::from_str(&read(&format!("transcripts/{name}"))?)?;
    let exchanges = transcript.get("exchanges").and_then(Value::as_array).into_iter().flatten();
    let mut bodies = exchanges.filter_map(|exchange| Some((body(exchange, "request")?, body(exchange, "response")?)));
    let call = bodies.find(|(request, _)| request.contains(r#""method":"tools/call","params":{"name":"add""#));
    let (request, response) = call.ok_or_else(|| format!("{name}: no call of `add`"))?;
    Ok((Bytes::copy_from_slice(request.as_bytes()), Bytes::copy_from_slice(response.as_bytes())))
}

/// The answer with 64 KiB of text in it: JSON within a JSON string, as servers like to send it.
pub(crate) fn enlarged(answer: &Bytes) -> Result<Bytes, Box<dyn Error>> {
    let escaped = serde_json::to_string(&tools()?)?;
    let unit = escaped.trim_matches('"');
    let text = unit.repeat(LARGE.div_ceil(unit.len()));
    // Cut in front of a backslash nothing is left of an escape.
    let end = text.get(..LARGE).and_then(|text| text.rfind('\\')).ok_or("no text to fill a result with")?;
    let text = text.get(..end).unwrap_or_default();
    let answer = std::str::from_utf8(answer)?;
    if !answer.contains(SUM) {
        return Err(format!("no {SUM} in {answer}").into());
    }
    Ok(answer.replace(SUM, &format!(r#""text":"{text}""#)).into())
}

/// Twenty events of a call that reports its progress, as the Python SDK writes them.
pub(crate) fn events() -> Result<Bytes, Box<dyn Error>> {
    Ok(read("sse/python-sdk-progress.sse")?.repeat(5).into())
}

/// A list of tools, a JSON array.
pub(crate) fn tools() -> Result<String, Box<dyn Error>> {
    read("upstream/data/tools.json")
}

/// A file of `fixtures/`.
pub(crate) fn read(name: &str) -> Result<String, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn body<'a>(exchange: &'a Value, side: &str) -> Option<&'a str> {
    exchange.get(side)?.get("body")?.as_str()
}
