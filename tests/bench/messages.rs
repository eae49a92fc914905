//! Messages: read, and rewritten for the other side; event streams.

use std::error::Error;

use hyper::body::Bytes;
use mcp_x::wire::jsonrpc::{Envelope, Kind, Sender};
use mcp_x::wire::mcp::{ClientCapabilities, Era, LogLevel, Operation, ProtocolVersion};
use mcp_x::wire::rewrite::{self, Asker, Inputs, Sent};
use mcp_x::wire::sse::Decoder;

use super::measure::Operations;
use super::samples::{DEPTH, call, enlarged, events};

const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];
/// The gateway's own number of a request, and the client's.
const NUMBER: u64 = 4_711;
const CLIENTS: &[u8] = b"3";
/// Bytes of the chunks in which a stream comes from a slow server.
const CHUNK: usize = 100;
/// Largest event, in bytes.
const LARGEST: usize = 1024 * 1024;

pub(crate) fn add(operations: &mut Operations) -> Result<(), Box<dyn Error>> {
    let (mut requests, mut results) = (Vec::new(), Vec::new());
    for era in ERAS {
        let (request, result) = call(era)?;
        let large = enlarged(&result)?;
        requests.push((era, request));
        results.extend([(era, "small", result), (era, "64 KiB", large)]);
    }

    for (era, request) in &requests {
        add_parse(operations, format!("parse: tools/call, {era} client"), request, Sender::Client, Kind::Request);
    }
    for (era, size, result) in &results {
        add_parse(operations, format!("parse: result, {era} server, {size}"), result, Sender::Server, Kind::Result);
    }
    for (era, request) in &requests {
        add_request(operations, *era, request)?;
    }
    for (era, size, result) in &results {
        add_result(operations, *era, size, result)?;
    }
    add_events(operations, &events()?);
    Ok(())
}

fn add_parse(operations: &mut Operations, name: String, bytes: &Bytes, sender: Sender, kind: Kind) {
    let name = format!("{name} ({} bytes)", bytes.len());
    let bytes = bytes.clone();
    let is_kind = move |read: &Result<Envelope, _>| read.as_ref().is_ok_and(|envelope| envelope.kind() == Ok(kind));
    operations.add(name, move || Envelope::parse(bytes.clone(), DEPTH, sender), is_kind);
}

/// What a server of each era is sent for a request of this one.
fn add_request(operations: &mut Operations, client: Era, request: &Bytes) -> Result<(), Box<dyn Error>> {
    let level = (client == Era::Modern).then_some(LogLevel::Info);
    let asker = Asker { era: client, level, capabilities: ClientCapabilities::NONE };
    for server in ERAS {
        let envelope = Envelope::parse(request.clone(), DEPTH, Sender::Client)?;
        let sent = Sent { operation: Operation::Call, name: "add", asker, inputs: Inputs::default(), server };
        operations.add(
            format!("rewrite: request, {client} client, {server} server"),
            move || rewrite::request(&envelope, NUMBER, sent),
            |written| is_message(written, Kind::Request, NUMBER.to_string().as_bytes()),
        );
    }
    Ok(())
}

/// What a client of each era is sent for a result of this one.
fn add_result(operations: &mut Operations, server: Era, size: &str, result: &Bytes) -> Result<(), Box<dyn Error>> {
    let is_result = |written: &Vec<Bytes>| is_message(&written.concat(), Kind::Result, CLIENTS);
    let name = |client: Era| format!("rewrite: result, {server} server, {client} client, {size}");
    let read = Envelope::parse(result.clone(), DEPTH, Sender::Server)?;
    let envelope = read.clone();
    let for_legacy = move || rewrite::result_for_legacy(&envelope, CLIENTS, ProtocolVersion::LATEST, server);
    operations.add(name(Era::Legacy), for_legacy, is_result);
    let for_modern = move || rewrite::result_for_modern(&read, CLIENTS, server, rewrite::Instead::default());
    operations.add(name(Era::Modern), for_modern, is_result);
    Ok(())
}

fn is_message(written: &[u8], kind: Kind, id: &[u8]) -> bool {
    let read = Envelope::parse(Bytes::copy_from_slice(written), DEPTH, Sender::Server);
    read.is_ok_and(|envelope| envelope.kind() == Ok(kind) && envelope.id() == Some(id))
}

fn add_events(operations: &mut Operations, stream: &Bytes) {
    let whole = vec![stream.clone()];
    let pieces = stream.chunks(CHUNK).map(|piece| stream.slice_ref(piece)).collect();
    for (name, chunks) in [("one chunk".to_owned(), whole), (format!("chunks of {CHUNK} bytes"), pieces)] {
        operations.add(format!("sse: 20 events in {name}"), move || decode(&chunks), |count| *count == 20);
    }
}

/// How many messages a stream holds.
fn decode(chunks: &[Bytes]) -> usize {
    let mut decoder = Decoder::new(LARGEST);
    let mut count = 0;
    for chunk in chunks {
        decoder.feed(chunk.clone());
        while let Ok(Some(event)) = decoder.next_event() {
            count += usize::from(event.is_message());
        }
    }
    count
}
