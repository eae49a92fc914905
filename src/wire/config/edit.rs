//! Changes of `config.toml` as a text: pure functions from the old text to the new one.
//!
//! The operator's file is not rewritten: `toml_edit` says where each key and value stands, and only those bytes are
//! replaced, inserted or taken out. Every other byte stays, whatever it is: comments, order, spacing, line ends, a BOM.
//! All ways to write a table are understood (headers, dotted keys, inline tables). What REST added goes without a trace
//! when it is removed. What a change means, and whether it is allowed, was decided by `policy::edit`; the gateway reads
//! the new text again before it is stored.

mod reading;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use toml_edit::{Array, InlineTable, Key, Value};

use self::reading::{Reading, Splice};
use super::problem::join;
use crate::time::Timestamp;

/// One change of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A client that registered itself: `[clients.NAME]`.
    AddClient {
        /// Its name, which no client has.
        name: String,
        /// When it registered itself, since the epoch; whole seconds count.
        registered: Duration,
        /// A name for people.
        label: Option<String>,
    },
    /// A client goes, and every grant that names it.
    RemoveClient {
        /// Its name.
        name: String,
    },
    /// A server that a client brings: `[mcp_servers.NAME]`.
    AddServer {
        /// Its name, which no server has.
        name: String,
        /// Where it lives.
        url: String,
        /// The client that owns it.
        owner: String,
        /// Headers sent to it.
        headers: Vec<(String, String)>,
        /// What is put before its tools' names.
        tool_prefix: Option<String>,
        /// The client that brought it.
        registered_by: String,
    },
    /// A server goes, and every grant on it.
    RemoveServer {
        /// Its name.
        name: String,
    },
    /// What one client may call on a server: replaces the patterns of tools and nothing else of its grant.
    SetTools {
        /// The server.
        server: String,
        /// The client, or `*`.
        client: String,
        /// Patterns; none revoke the grant.
        tools: Vec<String>,
    },
}

/// Why a text cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditError {
    /// It is no TOML; what the parser says.
    Syntax(String),
    /// Something has a form in which it cannot be changed: its path, and what to do.
    Form(String, &'static str),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(message) => f.write_str(message),
            Self::Form(path, what) => write!(f, "{path}: {what}"),
        }
    }
}

impl std::error::Error for EditError {}

/// Makes the changes, one after the other.
///
/// # Errors
/// [`EditError`]; then none of them was made.
pub fn apply(text: &str, changes: &[Change]) -> Result<String, EditError> {
    let mut editor = Editor::new(text.to_owned())?;
    for change in changes {
        editor.change(change)?;
    }
    Ok(editor.finish())
}

/// A text that has been read, and what is to become of it. Reading a large one takes long, so that changes which cannot
/// meet are made to one reading.
struct Editor {
    reading: Reading,
    splices: Vec<Splice>,
    /// Clients, servers and grants that were changed since the text was read.
    touched: HashSet<String>,
}

impl Editor {
    fn new(text: String) -> Result<Self, EditError> {
        Ok(Self { reading: Reading::new(text)?, splices: Vec::new(), touched: HashSet::new() })
    }

    fn change(&mut self, change: &Change) -> Result<(), EditError> {
        let everywhere = matches!(change, Change::RemoveClient { .. });
        let met = self.names(change)?.iter().any(|name| self.touched.contains(name));
        if met || (everywhere && !self.splices.is_empty()) {
            self.read_again()?;
        }
        let mut splices = self.plan(change)?;
        if splices.iter().any(|new| self.splices.iter().any(|old| old.meets(new))) {
            self.read_again()?;
            splices = self.plan(change)?;
        }
        let [_, touched] = self.names(change)?;
        self.touched.insert(touched);
        self.splices.append(&mut splices);
        if everywhere { self.read_again() } else { Ok(()) }
    }

    /// What a change may not meet another change of, and within that what it changes. Grants to several clients on one
    /// server do not meet, unless the first of them has to make the table.
    fn names(&self, change: &Change) -> Result<[String; 2], EditError> {
        let one = |name: String| [name.clone(), name];
        Ok(match change {
            Change::AddClient { name, .. } | Change::RemoveClient { name } => one(format!("client {name}")),
            Change::AddServer { name, .. } | Change::RemoveServer { name } => one(format!("server {name}")),
            Change::SetTools { server, client, .. } => {
                let outer = format!("server {server}");
                let inner = format!("grant {server}\n{client}");
                if self.reading.entry("allow", server)?.is_some() { [outer, inner] } else { one(outer) }
            }
        })
    }

    fn read_again(&mut self) -> Result<(), EditError> {
        if !self.splices.is_empty() {
            *self = Self::new(self.reading.spliced(&mut self.splices))?;
        }
        Ok(())
    }

    fn finish(mut self) -> String {
        self.reading.spliced(&mut self.splices)
    }

    fn plan(&self, change: &Change) -> Result<Vec<Splice>, EditError> {
        let reading = &self.reading;
        match change {
            Change::AddClient { name, registered, label } => {
                let mut lines = vec![("registered".to_owned(), instant(*registered))];
                lines.extend(label.as_ref().map(|label| ("label".to_owned(), string(label))));
                reading.add_table("clients", name, &lines)
            }
            Change::RemoveClient { name } => {
                let mut splices = reading.remove("clients", name)?;
                for (path, server) in reading.entries("allow")? {
                    splices.extend(reading.remove_grant(&path, server, name)?);
                }
                Ok(splices)
            }
            Change::AddServer { name, url, owner, headers, tool_prefix, registered_by } => {
                let mut lines = vec![
                    ("url", string(url)),
                    ("from_client", string(owner)),
                    ("registered_by", string(registered_by)),
                ];
                if !headers.is_empty() {
                    let table: InlineTable = headers.iter().map(|(name, value)| (name, value.as_str())).collect();
                    lines.push(("headers", Value::from(table).to_string()));
                }
                lines.extend(tool_prefix.as_ref().map(|prefix| ("tool_prefix", string(prefix))));
                let lines: Vec<_> = lines.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
                reading.add_table("mcp_servers", name, &lines)
            }
            Change::RemoveServer { name } => {
                let mut splices = reading.remove("mcp_servers", name)?;
                splices.extend(reading.remove("allow", name)?);
                Ok(splices)
            }
            Change::SetTools { server, client, tools } => self.set_tools(server, client, tools),
        }
    }

    fn set_tools(&self, server: &str, client: &str, tools: &[String]) -> Result<Vec<Splice>, EditError> {
        let (reading, path) = (&self.reading, join("allow", server));
        let Some(grants) = reading.entry("allow", server)? else {
            let line = (quoted(client), list(tools));
            return if tools.is_empty() { Ok(vec![]) } else { reading.add_table("allow", server, &[line]) };
        };
        let Some(grant) = grants.child(&path, client)? else {
            return if tools.is_empty() {
                Ok(vec![])
            } else {
                reading.add_entry(&["allow", server], grants, client, &list(tools))
            };
        };
        if grant.item.as_table_like().is_none() {
            return if tools.is_empty() {
                reading.remove_grant(&path, grants, client)
            } else {
                Ok(reading.set_list(grant.item, tools))
            };
        }
        let path = join(&path, client);
        let others = grant.entries(&path)?.iter().any(|(_, entry)| entry.key.get() != "tools");
        match grant.child(&path, "tools")? {
            _ if tools.is_empty() && !others => reading.remove_grant(&join("allow", server), grants, client),
            Some(entry) if tools.is_empty() => reading.removal(&join(&path, "tools"), entry),
            Some(entry) => Ok(reading.set_list(entry.item, tools)),
            None if tools.is_empty() => Ok(vec![]),
            None => reading.add_entry(&["allow", server, client], grant, "tools", &list(tools)),
        }
    }
}

/// A key as TOML writes it.
fn quoted(key: &str) -> String {
    Key::new(key).display_repr().into_owned()
}

fn string(text: &str) -> String {
    Value::from(text).to_string()
}

fn list(items: &[String]) -> String {
    Value::from(items.iter().map(String::as_str).collect::<Array>()).to_string()
}

/// A time in whole seconds, as TOML writes it.
fn instant(at: Duration) -> String {
    let text = Timestamp(Duration::from_secs(at.as_secs())).to_string();
    text.replace(".000Z", "Z")
}
