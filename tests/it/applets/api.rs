//! A scripted API server: one pod, perhaps one Job, and a switch to take it away. It knows what the waiter
//! asks for and nothing else; kairos-sim is the place for more.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

pub const NAMESPACE: &str = "ns";
pub const POD: &str = "waiter";
pub const JOB: &str = "job-1";
pub const OWNER: &str = "owner-uid";

/// How long a webhook is awaited that says nothing of it.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct State {
    pod_uid: String,
    annotations: BTreeMap<String, String>,
    job: Option<Value>,
    version: u64,
    down: bool,
    /// The pod is replaced when its reboot is announced.
    replaced_late: bool,
    /// An announcement that names the boot is refused.
    knows_no_boot: bool,
    /// A webhook that never answers, and may be ignored, is asked about each change.
    has_dead_webhook: bool,
    /// Its token is not taken any more from then on.
    token_ends_late: bool,
    token_ended: bool,
    log: Vec<String>,
    events: Vec<Value>,
}

/// The NodeOp that controls waiter and Job.
fn owner() -> Value {
    json!({ "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "name": "x", "uid": OWNER, "controller": true })
}

/// The server; clones are handles to it. Its threads end with the process.
#[derive(Clone, Debug)]
pub struct Api {
    state: Arc<(Mutex<State>, Condvar)>,
    pub url: String,
}

impl Api {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State { pod_uid: "pod-1".into(), ..State::default() };
        let api = Self { state: Arc::new((Mutex::new(state), Condvar::new())), url };
        let server = api.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || drop(server.serve(stream)));
            }
        });
        api
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.0.lock().unwrap();
        state.version += 1;
        let result = change(&mut state);
        self.state.1.notify_all();
        result
    }

    /// Makes the Job, or gives it a final condition.
    pub fn job(&self, condition: Option<&str>) {
        let conditions: Vec<_> =
            condition.iter().map(|type_| json!({ "type": type_, "status": "True" })).collect();
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": JOB, "namespace": NAMESPACE, "uid": "job-uid", "ownerReferences": [owner()] },
            "status": { "conditions": conditions },
        });
        self.change(|state| state.job = Some(job));
    }

    pub fn delete_job(&self) {
        self.change(|state| state.job = None);
    }

    pub fn replace_pod(&self) {
        self.change(|state| state.pod_uid = "pod-2".into());
    }

    /// Another pod has the waiter's name once it has looked for the last time.
    pub fn replace_pod_late(&self) {
        self.change(|state| state.replaced_late = true);
    }

    /// The waiter's token is not taken any more once it has looked for the last time.
    pub fn end_token_late(&self) {
        self.change(|state| state.token_ends_late = true);
    }

    pub fn take_token_again(&self) {
        self.change(|state| (state.token_ends_late, state.token_ended) = (false, false));
    }

    pub fn is_token_ended(&self) -> bool {
        self.state.0.lock().unwrap().token_ended
    }

    /// Away: connections are closed without an answer, and watches end.
    pub fn down(&self, down: bool) {
        self.change(|state| state.down = down);
    }

    pub fn reboot_state(&self) -> Option<String> {
        self.state.0.lock().unwrap().annotations.get("kairos.io/reboot-state").cloned()
    }

    /// In which boot the waiter says that it is.
    pub fn waits_in(&self) -> Option<String> {
        self.state.0.lock().unwrap().annotations.get("kairos.io/waits-in").cloned()
    }

    /// An admission policy of an earlier version, which knows one annotation.
    pub fn knows_no_boot(&self) {
        self.change(|state| state.knows_no_boot = true);
    }

    /// A webhook that never answers, and may be ignored, is asked about each change: that takes as long as it
    /// may, and a client that goes away meanwhile takes its request with it.
    pub fn has_dead_webhook(&self) {
        self.change(|state| state.has_dead_webhook = true);
    }

    /// The requests so far, as `METHOD path`.
    pub fn log(&self) -> Vec<String> {
        self.state.0.lock().unwrap().log.clone()
    }

    pub fn events(&self) -> Vec<Value> {
        self.state.0.lock().unwrap().events.clone()
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (method, path) =
            (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let mut length = 0;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header == "\r\n" {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        self.change(|state| state.log.push(format!("{method} {path}")));
        if self.state.0.lock().unwrap().down {
            return Ok(());
        }
        if path.contains("watch=true") {
            return self.watch(&mut stream);
        }
        if method == "PATCH" && self.state.0.lock().unwrap().has_dead_webhook {
            stream.set_read_timeout(Some(WEBHOOK_TIMEOUT))?;
            if stream.read(&mut [0]).is_ok() {
                return Ok(());
            }
        }
        let (code, answer) = self.change(|state| state.answer(&method, &path, &body));
        let text = answer.to_string();
        write!(
            stream,
            "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
            text.len()
        )
    }

    /// Sends the Job whenever anything changes; too often is allowed of a watch, too seldom is not.
    fn watch(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n")?;
        let mut last: Option<Value> = None;
        loop {
            let job = {
                let state = self.state.0.lock().unwrap();
                let seen = last.clone();
                let wait = self.state.1.wait_timeout_while(state, Duration::from_secs(60), |state| {
                    state.job == seen && !state.down
                });
                let state = wait.unwrap().0;
                if state.down {
                    return Ok(());
                }
                state.job.clone()
            };
            let (kind, object) = match (&last, &job) {
                (_, Some(job)) => ("MODIFIED", job.clone()),
                (Some(gone), None) => ("DELETED", gone.clone()),
                (None, None) => continue,
            };
            let mut object = object;
            object["metadata"]["resourceVersion"] = json!("7");
            writeln!(stream, "{}", json!({ "type": kind, "object": object }))?;
            last = job;
        }
    }
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let gone = || {
            (
                404,
                json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "gone", "code": 404 }),
            )
        };
        let announced = &body["metadata"]["annotations"]["kairos.io/reboot-state"];
        self.token_ended |= self.token_ends_late && announced == "rebooting";
        if self.token_ended {
            return (
                401,
                json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unauthorized", "message": "Unauthorized", "code": 401 }),
            );
        }
        let jobs = format!("/apis/batch/v1/namespaces/{NAMESPACE}/jobs");
        let path = path.split('?').next().unwrap_or_default();
        if path == format!("/api/v1/namespaces/{NAMESPACE}/pods/{POD}") {
            if method == "PATCH" {
                if self.replaced_late
                    && body["metadata"]["annotations"]["kairos.io/reboot-state"] == "rebooting"
                {
                    self.pod_uid = "pod-2".into();
                }
                let uid = &body["metadata"]["uid"];
                if !uid.is_null() && *uid != self.pod_uid {
                    // As a real server answers it: no conflict, but a field that cannot be changed.
                    let cause = json!({ "reason": "FieldValueInvalid", "message": "field is immutable", "field": "metadata.uid" });
                    let details = json!({ "name": POD, "kind": "Pod", "causes": [cause] });
                    return (
                        422,
                        json!({ "kind": "Status", "status": "Failure", "reason": "Invalid", "message": "uid", "details": details, "code": 422 }),
                    );
                }
                if self.knows_no_boot && !body["metadata"]["annotations"]["kairos.io/waits-in"].is_null() {
                    return (
                        422,
                        json!({ "kind": "Status", "status": "Failure", "reason": "Invalid", "message": "only its annotation", "code": 422 }),
                    );
                }
                for (key, value) in body["metadata"]["annotations"].as_object().into_iter().flatten() {
                    self.annotations.insert(key.clone(), value.as_str().unwrap_or_default().into());
                }
            }
            let metadata = json!({ "name": POD, "namespace": NAMESPACE, "uid": self.pod_uid, "annotations": self.annotations, "ownerReferences": [owner()] });
            (200, json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata }))
        } else if path == format!("{jobs}/{JOB}") {
            self.job.clone().map_or_else(gone, |job| (200, job))
        } else if path == jobs {
            let items: Vec<_> = self.job.iter().collect();
            (
                200,
                json!({ "apiVersion": "batch/v1", "kind": "JobList", "metadata": { "resourceVersion": "7" }, "items": items }),
            )
        } else if path.ends_with("/events") && method == "POST" {
            self.events.push(body.clone());
            (201, body.clone())
        } else {
            gone()
        }
    }
}
