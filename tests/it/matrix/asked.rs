//! What servers ask clients: every client revision at every kind of server.

use mcp_x_fixture::Mode;
use serde_json::{Value, json};

use super::{Outcome, Pair, text_of};
use crate::support::ALICE;
use crate::support::asking::{EVERYTHING, accept, call, play, said};
use crate::support::client::Client;

impl Pair {
    /// A client that declares these capabilities.
    fn declaring(&self, capabilities: &str) -> Client {
        self.harness.client(ALICE).speaking_as(self.revision, capabilities)
    }

    /// Calls a tool that asks something; the text of its result, and the questions.
    fn played(
        &self,
        capabilities: &str,
        (tool, arguments): (&str, &str),
        mut answer: impl FnMut(&str, &Value) -> Value,
    ) -> Result<(String, Vec<Value>), String> {
        let (before, mut questions) = (self.fixture.counts().executions_of(tool), Vec::new());
        let message = call(self.revision, capabilities, tool, arguments);
        let response = play(&mut self.declaring(capabilities), self.revision, &message, |method, params| {
            questions.push(json!({ "method": method, "params": params }));
            answer(method, params)
        });
        let counts = self.fixture.counts();
        assert_eq!((counts.questions_open, counts.questions_withdrawn, counts.questions_cancelled), (0, 0, 0));
        // A modern server is called once more with the answers; a legacy one never is.
        let most = if self.server == Mode::Modern { 2 } else { 1 };
        assert!(counts.executions_of(tool) - before <= most, "{counts:?}");
        Ok((text_of(&response)?, questions))
    }
}

pub(super) fn elicitation(pair: &Pair) -> Outcome {
    let tool = ("test_input_required_result_elicitation", "{}");
    let (text, questions) = pair.played(r#"{"elicitation":{}}"#, tool, |_, _| accept(&json!({ "name": "Zoë" })))?;
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } }, "required": ["name"] });
    let params = json!({ "message": "What is your name?", "requestedSchema": schema });
    assert_eq!(questions, [json!({ "method": "elicitation/create", "params": params })]);
    assert_eq!(text, "Hello, Zoë!");
    Ok(())
}

pub(super) fn sampling(pair: &Pair) -> Outcome {
    let tool = ("test_input_required_result_sampling", "{}");
    let (text, questions) = pair.played(r#"{"sampling":{}}"#, tool, |_, _| said("Paris"))?;
    let content = json!({ "type": "text", "text": "What is the capital of France?" });
    let params = json!({ "messages": [{ "role": "user", "content": content }], "maxTokens": 100 });
    assert_eq!(questions, [json!({ "method": "sampling/createMessage", "params": params })]);
    assert_eq!(text, format!("Answers: {}", json!({ "capital_question": said("Paris") })));
    Ok(())
}

pub(super) fn roots(pair: &Pair) -> Outcome {
    let tool = ("test_input_required_result_list_roots", "{}");
    let roots = json!({ "roots": [{ "uri": "file:///a", "name": "a" }] });
    let (text, questions) = pair.played(r#"{"roots":{}}"#, tool, |_, _| roots.clone())?;
    assert_eq!(questions, [json!({ "method": "roots/list", "params": {} })]);
    assert_eq!(text, format!("Answers: {}", json!({ "client_roots": roots })));
    Ok(())
}

pub(super) fn undeclared(pair: &Pair) -> Outcome {
    let tool = ("test_input_required_result_elicitation", "{}");
    pair.played("{}", tool, |method, _| panic!("asked for {method}")).map(drop)
}

pub(super) fn url(pair: &Pair) -> Outcome {
    let capabilities = r#"{"elicitation":{"url":{}}}"#;
    let tool = ("test_url_elicitation", "{}");
    let (text, questions) = pair.played(capabilities, tool, |_, _| json!({ "action": "accept" }))?;
    let mut params = questions[0]["params"].clone();
    // A legacy client is told by an id which visit is over.
    let id = params.as_object_mut().unwrap().remove("elicitationId");
    assert_eq!(id.is_some(), !pair.is_modern(), "{questions:?}");
    let expected = json!({ "mode": "url", "message": "Please open the page", "url": "https://example.com/fixture" });
    assert_eq!((params, questions.len()), (expected, 1));
    assert_eq!(text, "Url elicitation completed: action=accept");
    Ok(())
}

pub(super) fn url_required(pair: &Pair) -> Outcome {
    let arguments = r#"{"key":"a"}"#;
    let message = call(pair.revision, EVERYTHING, "test_url_required", arguments);
    let mut client = pair.declaring(EVERYTHING);
    let mut asked = 0;
    let mut ask = || {
        play(&mut client, pair.revision, &message, |_, params| {
            asked += 1;
            assert_eq!(params["url"], "https://example.com/fixture/required", "{params}");
            json!({ "action": "accept" })
        })
    };
    let mut response = ask();
    if response["error"]["code"] == -32042 {
        // The client's to do, and then it calls again.
        let data = &response["error"]["data"]["elicitations"][0];
        assert_eq!(data["url"], "https://example.com/fixture/required", "{response}");
        response = ask();
        asked += 1;
    }
    let text = text_of(&response)?;
    assert!(["Visited the page for a.", "Url elicitation completed: action=accept"].contains(&text.as_str()), "{text}");
    assert_eq!(asked, 1);
    Ok(())
}
