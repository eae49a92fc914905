//! `bench-load`: asks an MCP server or gateway in a closed loop, checks every answer, prints one line of JSON.
//!
//! Each connection asks its next request when its last one is answered. What is measured begins when all connections
//! have done their handshake and a few requests each, and ends with the last answer.

mod ask;
mod check;
mod client;
mod cpu;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::Uri;
use mcp_x_bench::mcp::Era;
use mcp_x_bench::options::{Options, exit};
use tokio::runtime::{Builder, LocalOptions};

use ask::{Kind, Plan};
use client::{Client, Target};
use cpu::Watched;

const KNOWN: [&str; 13] = [
    "--url",
    "--token",
    "--era",
    "--kind",
    "--size",
    "--servers",
    "--called",
    "--conns",
    "--secs",
    "--count",
    "--warmup",
    "--cpu",
    "--idle",
];

/// Everything that the connections share.
struct Run {
    plan: Plan,
    /// The id of the next request; no id is used twice.
    next_id: Cell<u64>,
    /// When no more is asked; None: after `left` requests.
    end: Cell<Option<Instant>>,
    left: Cell<u64>,
    /// Microseconds that each right answer took.
    latencies: RefCell<Vec<f64>>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
}

fn main() -> ExitCode {
    let ended = Options::read(std::env::args().skip(1), &KNOWN).and_then(|options| {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        runtime.map_err(|error| error.to_string())?.block_on(start(&options))
    });
    exit("bench-load", ended)
}

async fn start(options: &Options) -> Result<(), String> {
    let url: Uri = options.find("--url")?.ok_or("`--url` is missing")?;
    let host = url.authority().ok_or("`--url`: expected http://HOST:PORT/PATH")?.to_string();
    let path = url.path().parse().map_err(|_| "`--url`: not a path")?;
    let target = Target { host, path, token: options.get("--token", "123".to_owned())? };
    let kind = options.get("--kind", Kind::Echo)?;
    let size = options.get("--size", kind.usual_size())?;
    let servers = options.get("--servers", 1)?;
    let called = options.get("--called", servers)?;
    let plan = Plan { era: options.get("--era", Era::Legacy)?, kind, size, servers, called };
    match options.find("--idle")? {
        Some(conns) => hold(&target, plan, conns).await,
        None => measure(options, &target, plan).await,
    }
}

/// Holds connections that have made one request each, until stdin ends.
async fn hold(target: &Target, plan: Plan, conns: u64) -> Result<(), String> {
    let mut held = Vec::new();
    for id in 1..=conns {
        let mut client = Client::connect(target).await?;
        client.exchange(&plan, id).await?;
        held.push(client);
    }
    print(&format!(r#"{{"idle":{}}}"#, held.len()))?;
    std::io::stdin().read_to_end(&mut Vec::new()).map_err(|error| error.to_string())?;
    Ok(())
}

async fn measure(options: &Options, target: &Target, plan: Plan) -> Result<(), String> {
    let conns = options.get("--conns", 1)?;
    let watched: Watched = options.get("--cpu", Watched::default())?;
    let mut clients = Vec::new();
    for _ in 0..conns {
        let mut client = Client::connect(target).await?;
        client.begin(plan.era).await?;
        clients.push(client);
    }
    let run = Rc::new(Run::new(plan));
    run.left.set(options.get("--warmup", 20)? * conns);
    let clients = run.all(clients).await?;
    run.latencies.take();
    let (begun, cpu) = (Instant::now(), watched.nanoseconds()?);
    match options.find("--count")? {
        Some(count) => run.left.set(count),
        None => run.end.set(Some(begun + Duration::from_secs_f64(options.get("--secs", 1.0)?))),
    }
    run.all(clients).await?;
    let seconds = begun.elapsed().as_secs_f64();
    print(&run.report(seconds, watched.nanoseconds()?.saturating_sub(cpu)))
}

fn print(line: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| error.to_string())
}

impl Run {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            next_id: Cell::new(1),
            end: Cell::new(None),
            left: Cell::new(0),
            latencies: RefCell::default(),
            errors: Cell::new(0),
            first_error: RefCell::default(),
        }
    }

    /// Lets all connections ask until there is nothing left to ask.
    async fn all(self: &Rc<Self>, clients: Vec<Client>) -> Result<Vec<Client>, String> {
        let ask = |client| tokio::task::spawn_local(self.clone().one(client));
        let tasks: Vec<_> = clients.into_iter().map(ask).collect();
        let mut clients = Vec::new();
        for task in tasks {
            clients.push(task.await.map_err(|error| error.to_string())?);
        }
        Ok(clients)
    }

    async fn one(self: Rc<Self>, mut client: Client) -> Client {
        while let Some(id) = self.next() {
            let begun = Instant::now();
            let ended = client.exchange(&self.plan, id).await;
            self.note(begun.elapsed(), ended);
        }
        client
    }

    /// Gives the id of the next request, if there is to be one.
    fn next(&self) -> Option<u64> {
        let more = match self.end.get() {
            Some(end) => Instant::now() < end,
            None => self.left.replace(self.left.get().saturating_sub(1)) > 0,
        };
        more.then(|| self.next_id.replace(self.next_id.get() + 1))
    }

    fn note(&self, took: Duration, ended: Result<(), String>) {
        match ended {
            Ok(()) => self.latencies.borrow_mut().push(took.as_secs_f64() * 1e6),
            Err(error) => {
                self.errors.set(self.errors.get() + 1);
                self.first_error.borrow_mut().get_or_insert(error);
            }
        }
    }

    /// The line that is printed; `cpu` is in nanoseconds. Errors of the first requests, too, are in it.
    fn report(&self, seconds: f64, cpu: u64) -> String {
        let mut latencies = self.latencies.take();
        latencies.sort_by(f64::total_cmp);
        let (requests, errors) = (latencies.len(), self.errors.get());
        let [p50, p99] = [50, 99].map(|percent| latencies.get(requests * percent / 100).copied().unwrap_or_default());
        let error = serde_json::to_string(&*self.first_error.borrow()).unwrap_or_default();
        let times = format!(r#""seconds":{seconds:.3},"p50_us":{p50:.1},"p99_us":{p99:.1},"cpu_ns":{cpu}"#);
        format!(r#"{{"requests":{requests},"errors":{errors},"first_error":{error},{times}}}"#)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_right_answers_and_tells_the_first_error() {
        let run = Run::new(Plan { era: Era::Legacy, kind: Kind::Echo, size: 0, servers: 1, called: 1 });
        for took in [30, 10, 20] {
            run.note(Duration::from_micros(took), Ok(()));
        }
        run.note(Duration::ZERO, Err("a \"quoted\" one".to_owned()));
        run.note(Duration::ZERO, Err("another".to_owned()));
        let times = r#""seconds":1.500,"p50_us":20.0,"p99_us":30.0,"cpu_ns":7"#;
        let expected = format!(r#"{{"requests":3,"errors":2,"first_error":"a \"quoted\" one",{times}}}"#);
        assert_eq!(run.report(1.5, 7), expected);
    }

    #[test]
    fn as_many_requests_are_made_as_are_asked_for_and_no_id_comes_twice() {
        let run = Run::new(Plan { era: Era::Legacy, kind: Kind::Echo, size: 0, servers: 1, called: 1 });
        run.left.set(2);
        assert_eq!([run.next(), run.next(), run.next(), run.next()], [Some(1), Some(2), None, None]);
    }
}
