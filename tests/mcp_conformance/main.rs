//! A small MCP client against the conformance suite of the Model Context Protocol
//! (`tests/servers/mcp-conformance`): all scenarios without a user at a browser, which are client
//! credentials (SEP-1046) and an enterprise's login (SEP-990).
//!
//! Needs `node` 20.19 or later and `npm`. Without them, or if the first run cannot reach npm's
//! registry, the tests are skipped with a notice. If `CI` is set, they fail instead.

mod client;
#[path = "../support/node/installation.rs"]
mod installation;
mod metadata;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use std::{env, fs, process};

use client::Credentials;
use installation::Installation;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

static INSTALLATION: Installation = Installation::new("mcp-conformance");

/// The limit of one scenario, including the start of Node.
const SCENARIO_LIMIT: Duration = Duration::from_secs(60);
/// The limit of the client, which is shorter, so that it never outlives the scenario.
const CLIENT_LIMIT: Duration = Duration::from_secs(20);

const JWT: &str = "auth/client-credentials-jwt";
const BASIC: &str = "auth/client-credentials-basic";
const CROSS_APP: &str = "auth/cross-app-access-complete-flow";

/// Set by a test whose client is to present credentials that the server does not know.
const WRONG_CREDENTIALS: &str = "BEARER_AUTH_WRONG_CREDENTIALS";

/// The outcome of one scenario.
struct Report {
    passed: bool,
    checks: Vec<Value>,
    /// The output of the client.
    stderr: String,
}

impl Report {
    /// Returns the names of the checks with this status, in order, each once.
    fn checks(&self, status: &str) -> Vec<&str> {
        let checks = self.checks.iter().filter(|check| check["status"] == status);
        let mut names: Vec<_> = checks.filter_map(|check| check["id"].as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns the forms of all token requests that the authorization server has received.
    fn token_requests(&self) -> Vec<&Value> {
        let received = self.checks.iter().filter(|check| {
            check["id"] == "incoming-auth-request" && check["details"]["path"] == "/token"
        });
        received.map(|check| &check["details"]["body"]).collect()
    }

    fn resource(&self) -> &Value {
        let sent = self.checks.iter().find(|check| {
            check["id"] == "outgoing-response" && check["details"]["body"]["resource"].is_string()
        });
        &sent.unwrap()["details"]["body"]["resource"]
    }
}

fn suite(folder: &Path) -> Command {
    let mut command = Command::new("node");
    command
        .arg("server.mjs")
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn output(command: &mut Command) -> Output {
    timeout(SCENARIO_LIMIT, command.output())
        .await
        .expect("the suite took too long")
        .unwrap()
}

/// Runs a scenario with this program as the client, see `client_process`.
async fn run(folder: &Path, scenario: &str, credentials: &str) -> Report {
    let results = Results::new(scenario, credentials);
    let client = env::current_exe().unwrap();
    // The suite appends the URL. The shell that it uses needs the quotes.
    let client = format!(
        "\"{}\" client_process --exact --ignored --nocapture",
        client.display()
    );
    let output = output(
        suite(folder)
            .args(["client", "--scenario", scenario, "--command", &client])
            .arg("--output-dir")
            .arg(&results.0)
            .env(WRONG_CREDENTIALS, credentials),
    )
    .await;
    Report {
        passed: output.status.success(),
        checks: serde_json::from_str(&results.read("checks.json")).unwrap(),
        stderr: results.read("stderr.txt"),
    }
}

/// A folder for the results of one scenario, which is removed when this is dropped.
struct Results(PathBuf);

impl Results {
    fn new(scenario: &str, credentials: &str) -> Self {
        let scenario = scenario.replace('/', "-");
        let name = format!("mcp-{scenario}-{credentials}-{}", process::id());
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    /// Reads a file of the suite, which is in a folder within folders, named by scenario and time.
    fn read(&self, file: &str) -> String {
        let mut folder = self.0.clone();
        while !folder.join(file).is_file() {
            let mut entries = fs::read_dir(&folder).expect("the suite has written no results");
            folder = entries.next().expect("a folder is empty").unwrap().path();
        }
        fs::read_to_string(folder.join(file)).unwrap()
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn the_suite_has_no_other_scenarios_without_a_browser() {
    let Some(folder) = INSTALLATION.folder() else {
        return;
    };
    let list = output(suite(folder).args(["list", "--client"])).await;
    let list = String::from_utf8(list.stdout).unwrap();
    let listed = list.lines().filter_map(|line| line.strip_prefix("  - "));
    let found: Vec<_> = listed
        .filter(|line| line.contains("client-credentials") || line.ends_with("[extension]"))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(found, [JWT, BASIC, CROSS_APP], "{list}");
}

#[tokio::test]
async fn the_client_passes_each_scenario_with_one_token() {
    const COMMON: [&str; 4] = [
        "authorization-server-metadata",
        "prm-pathbased-requested",
        "token-request",
        "valid-bearer-token",
    ];

    let Some(folder) = INSTALLATION.folder() else {
        return;
    };
    for (scenario, own) in [
        (JWT, &["client-credentials-jwt-verified"][..]),
        (BASIC, &["client-credentials-basic-auth"]),
        (
            CROSS_APP,
            &["complete-flow-jwt-bearer", "complete-flow-token-exchange"],
        ),
    ] {
        let report = run(folder, scenario, "").await;
        let Report { passed, stderr, .. } = &report;
        assert!(passed, "{scenario}: {:?}\n{stderr}", report.checks);
        let mut expected = [&COMMON, own].concat();
        expected.sort_unstable();
        assert_eq!(report.checks("SUCCESS"), expected, "{scenario}");
        for status in ["FAILURE", "WARNING"] {
            assert!(report.checks(status).is_empty(), "{:?}", report.checks);
        }
        let forms = report.token_requests();
        assert_eq!(forms.len(), 1, "{scenario}: {forms:?}");
        // An assertion of the identity provider names the resource itself.
        if scenario != CROSS_APP {
            assert_eq!(forms[0]["grant_type"], "client_credentials", "{scenario}");
            assert_eq!(&forms[0]["resource"], report.resource(), "{scenario}");
        }
    }
}

#[tokio::test]
async fn wrong_credentials_fail_each_scenario_as_an_invalid_client() {
    let Some(folder) = INSTALLATION.folder() else {
        return;
    };
    for (scenario, check) in [
        (JWT, "client-credentials-jwt-verified"),
        (BASIC, "client-credentials-basic-auth"),
        (CROSS_APP, "complete-flow-jwt-bearer"),
    ] {
        let report = run(folder, scenario, "1").await;
        assert!(!report.passed, "{scenario}");
        assert_eq!(report.checks("FAILURE"), [check], "{scenario}");
        let stderr = &report.stderr;
        assert!(stderr.contains("invalid_client"), "{scenario}: {stderr}");
        assert_eq!(report.token_requests().len(), 1, "{scenario}");
        assert!(!report.checks("SUCCESS").contains(&"valid-bearer-token"));
    }
}

/// The client, in a process of its own, which the suite starts. Passes if there is no suite.
#[tokio::test]
#[ignore = "the other tests run it"]
async fn client_process() {
    let Ok(context) = env::var("MCP_CONFORMANCE_CONTEXT") else {
        return;
    };
    let mut credentials: Credentials = serde_json::from_str(&context).unwrap();
    if env::var_os(WRONG_CREDENTIALS).is_some_and(|it| !it.is_empty()) {
        let key = include_str!("../keys/p256.pem");
        credentials.private_key_pem = credentials.private_key_pem.map(|_| key.to_owned());
        credentials.client_secret = credentials.client_secret.map(|_| "wrong".to_owned());
    }
    let server = env::args().next_back().unwrap();
    let tools = timeout(CLIENT_LIMIT, client::list_tools(&server, &credentials));
    match tools.await.expect("the server took too long") {
        Ok(tools) => assert_eq!(tools, ["test-tool"]),
        Err(error) => panic!("{error}"),
    }
}
