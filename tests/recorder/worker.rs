//! A worker that takes jobs, and does with them what workers do: completes, fails, forgets, says it late, says it twice.

use std::collections::VecDeque;
use std::sync::Arc;

use aob_checker::record::{Call, Done, Invoke, Record, What};
use serde_json::{Value, json};

use super::client::{Ended, operation};
use super::{Dice, Guest, World};
use crate::harness::http::Client;

/// A result to be told: the lease, its run and node.
struct Result {
    lease: String,
    run: String,
    node: String,
}

/// Works until the world stops.
pub fn work(world: &Arc<World>, number: u64) {
    let mut dice = Dice::new(world.seed, number);
    let (name, guest) = (format!("worker-{number}"), world.guest(number));
    let mut late: VecDeque<Result> = VecDeque::new();
    let mut last = 0;
    while let Some((address, generation)) = world.node(last) {
        last = generation;
        let mut client = super::client::client(&address, &guest);
        while !world.is_stopping() {
            let Some(jobs) = poll(world, (&name, &guest), &mut client) else { break };
            let due = late.len().saturating_sub(3);
            let mut results: Vec<Result> = late.drain(..due).collect();
            for job in jobs {
                match dice.below(12) {
                    0 => {}
                    1 => late.push_back(job),
                    2 => {
                        results.push(Result {
                            lease: job.lease.clone(),
                            run: job.run.clone(),
                            node: job.node.clone(),
                        });
                        results.push(job);
                    }
                    _ => results.push(job),
                }
            }
            let told = results.into_iter().all(|result| {
                let what = if dice.one_in(10) { What::Fail } else { What::Complete };
                !matches!(tell(world, &name, (what, &result), &mut client), Ended::Unknown)
            });
            if !told {
                break;
            }
        }
    }
}

/// Asks for jobs; each is in the ledger as soon as it is there. `None`: the node is gone.
fn poll(world: &World, (name, guest): (&str, &Option<Guest>), client: &mut Client) -> Option<Vec<Result>> {
    let op = world.number();
    let invoke = operation(name, What::Poll);
    world.record(|at_us| Record::Invoke(Invoke { at_us, op, ..invoke }));
    let body = json!({"queues": ["work"], "max": 4, "wait_ms": 100, "worker": name});
    let answer = client.post_with("/v1/workers/poll", &[], &body);
    let answer = answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.json());
    let Some(answer) = answer else {
        world.record(|at_us| Record::Unknown { at_us, op });
        return None;
    };
    world.record(|at_us| Record::Ok(Done { at_us, op, ..Done::default() }));
    let jobs = answer["jobs"].as_array()?.iter();
    Some(jobs.map(|job| took(world, guest, job)).collect())
}

fn took(world: &World, guest: &Option<Guest>, job: &Value) -> Result {
    let text = |member: &str| job[member].as_str().unwrap_or_default().to_owned();
    let result = Result { lease: text("lease"), run: text("run_id"), node: text("node") };
    world.record(|at_us| {
        Record::Call(Call {
            at_us,
            wall_ms: World::wall_ms(),
            service: String::from("worker"),
            key: Some(text("idempotency_key")),
            run: result.run.clone(),
            node: result.node.clone(),
            attempt: job["attempt"].as_u64().unwrap_or(0),
            epoch: job["epoch"].as_u64().unwrap_or(0),
            honours: false,
            effect: true,
            answer: None,
            workspace: guest.as_ref().map(|guest| guest.workspace.clone()),
        })
    });
    world.progress();
    result
}

/// Says how a job ended.
fn tell(world: &World, name: &str, (what, result): (What, &Result), client: &mut Client) -> Ended {
    let token = world.token("result");
    let op = world.number();
    let (run, node) = (Some(result.run.clone()), Some(result.node.clone()));
    let invoke = Invoke { op, run: run.clone(), node, token: Some(token.clone()), ..operation(name, what) };
    world.record(|at_us| Record::Invoke(Invoke { at_us, ..invoke }));
    let answer = match what {
        What::Fail => {
            let error = json!({"code": "planned", "message": token, "retryable": true});
            client.post_with("/v1/workers/fail", &[], &json!({"lease": result.lease, "error": error}))
        }
        _ => {
            let output = json!({"token": token});
            client.post_with("/v1/workers/complete", &[], &json!({"lease": result.lease, "output": output}))
        }
    };
    let said = answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.json());
    let said = said.as_ref().map(|said| &said["results"][0]);
    let text = |member: &str| said.and_then(|said| said[member].as_str()).map(str::to_owned);
    let ended = match text("status").as_deref() {
        Some("accepted") => Ended::Ok(Box::new(Done { run, ..Done::default() })),
        Some("stale") => Ended::Fail(String::from("stale")),
        Some(_) if text("code").as_deref() == Some("lease_unknown") => {
            Ended::Fail(String::from("lease_unknown"))
        }
        _ => Ended::Unknown,
    };
    world.record(|at_us| match &ended {
        Ended::Ok(done) => Record::Ok(Done { at_us, op, ..(**done).clone() }),
        Ended::Fail(code) => Record::Fail { at_us, op, code: code.clone() },
        Ended::Unknown => Record::Unknown { at_us, op },
    });
    ended
}
