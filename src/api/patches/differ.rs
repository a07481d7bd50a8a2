//! What differs between two versions of a run's graph, as JSON, text or a picture; and which layer put each node and edge
//! there. Both are derived from the log, for finished runs too, on blocking threads.

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode, header};
use serde::Serialize;

use super::super::catalog::{Catalog, Entry, Turn};
use super::super::ports::Overlay;
use super::super::request;
use super::super::respond::{Body, bytes, json, with};
use super::super::services::{Services, blocking};
use super::Answer;
use super::show::{Patch, found};
use crate::compile::patch::{Diff, Item, Member, What, diff, read, remake};
use crate::draw::{self, Drawing, Mark, Scope};
use crate::model::patch::{Change, PatchId};
use crate::model::{RunId, Value};
use crate::wire::problem::Problem;
use crate::wire::{Hash, Shown};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const SVG: &str = "image/svg+xml";
/// A picture may style itself, and nothing else: names in it come from whoever wrote the patch.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";

/// One side of a comparison.
#[derive(Serialize)]
struct Side {
    version: u32,
    hash: String,
}

#[derive(Serialize)]
struct Shape<'a> {
    run_id: Shown<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_id: Option<Shown<PatchId>>,
    from: Side,
    to: Side,
    nodes: Vec<ItemShape<'a>>,
    edges: Vec<ItemShape<'a>>,
    metadata: Vec<MemberShape<'a>>,
}

#[derive(Serialize)]
struct ItemShape<'a> {
    id: &'a str,
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    /// `added`, `removed`, `changed`.
    what: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<MemberShape<'a>>,
}

/// `from` is left out of what was not there, `to` of what is not there any more.
#[derive(Serialize)]
struct MemberShape<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a Value>,
}

impl<'a> From<&'a Member> for MemberShape<'a> {
    fn from(member: &'a Member) -> Self {
        Self { path: &member.path, from: member.from.as_ref(), to: member.to.as_ref() }
    }
}

impl<'a> From<&'a Item> for ItemShape<'a> {
    fn from(item: &'a Item) -> Self {
        let (what, changes) = match &item.what {
            What::Added => ("added", Vec::new()),
            What::Removed => ("removed", Vec::new()),
            What::Changed(members) => ("changed", members.iter().map(MemberShape::from).collect()),
        };
        Self { id: &item.key, kind: &item.kind, what, changes }
    }
}

/// Two versions of a graph, compared.
pub(super) struct Compared {
    pub(super) run_id: RunId,
    pub(super) patch_id: Option<PatchId>,
    /// Version and document.
    pub(super) from: (u32, Arc<Entry>),
    pub(super) to: (u32, Arc<Entry>),
}

impl Compared {
    /// In the form that the caller takes. Blocks: documents may be large.
    pub(super) fn answer(&self, kind: &'static str) -> Response<Body> {
        let (before, after) = (&self.from.1.compiled.document, &self.to.1.compiled.document);
        let diff = diff(before, after);
        let response = match kind {
            TEXT => bytes(StatusCode::OK, "text/plain; charset=utf-8", diff.to_text()),
            SVG => {
                let picture = bytes(StatusCode::OK, SVG, self.picture(&diff));
                let picture = with(picture, header::CONTENT_SECURITY_POLICY, POLICY);
                with(picture, header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            }
            _ => json(StatusCode::OK, &self.shape(&diff)),
        };
        with(response, header::VARY, "accept")
    }

    fn shape<'a>(&self, diff: &'a Diff) -> Shape<'a> {
        let side = |(version, entry): &(u32, Arc<Entry>)| Side {
            version: *version,
            hash: Hash(&entry.compiled.hash).to_string(),
        };
        Shape {
            run_id: Shown(self.run_id),
            patch_id: self.patch_id.map(Shown),
            from: side(&self.from),
            to: side(&self.to),
            nodes: diff.nodes.iter().map(ItemShape::from).collect(),
            edges: diff.edges.iter().map(ItemShape::from).collect(),
            metadata: diff.metadata.iter().map(MemberShape::from).collect(),
        }
    }

    /// The graph after, with what is gone still in it.
    fn picture(&self, diff: &Diff) -> String {
        let (before, after) = (&self.from.1.compiled.document, &self.to.1.compiled.document);
        let mut scope = Scope::read(&united(before, after));
        let mark = |items: &[Item], key: &str| {
            let found = items.binary_search_by(|item| (*item.key).cmp(key)).ok();
            match found.and_then(|at| items.get(at)).map(|item| &item.what) {
                None => Mark::None,
                Some(What::Added) => Mark::Added,
                Some(What::Removed) => Mark::Removed,
                Some(What::Changed(_)) => Mark::Changed,
            }
        };
        scope.mark(
            |id| mark(&diff.nodes, id),
            |from, to, on| {
                let on = if on == "success" { String::new() } else { format!(":{on}") };
                mark(&diff.edges, &format!("{from}/{to}{on}"))
            },
        );
        let title = format!("{}: version {} -> {}", self.to.1.compiled.ir.name, self.from.0, self.to.0);
        draw::svg(&Drawing { title, scope })
    }
}

/// A document with the nodes and edges of both.
fn united(before: &Value, after: &Value) -> Value {
    let both = |root: &str| {
        let map = |value: &Value| match value.get(root) {
            Some(Value::Map(map)) => map.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            _ => Vec::new(),
        };
        // Of two with one key the later stays.
        let mut all = std::collections::BTreeMap::from_iter(map(before));
        all.extend(map(after));
        Value::map(all)
    };
    Value::map([("nodes", both("nodes")), ("edges", both("edges"))])
}

/// `GET /v1/runs/{id}/patches/{patch}/diff`
pub(in crate::api) async fn of_patch(
    services: &Services,
    head: &Parts,
    (run_id, patch_id): (RunId, PatchId),
) -> Answer {
    let kind = request::preferred(&head.headers, &[JSON, TEXT, SVG])?;
    let [] = request::parameters(head, [])?;
    let (location, runs) = (services.locate(run_id).await?, services.runs.clone());
    let catalog = services.catalog.clone();
    blocking(move || {
        let overlay = runs.overlay(&location)?;
        let made = overlay.1.iter().position(
            |layer| matches!(&layer.change, Change::Patch(proposal) if proposal.patch_id == patch_id),
        );
        let Some(at) = made else {
            let patch = found(&*runs, &location, (run_id, patch_id))?;
            return supposed(&catalog, (run_id, &overlay), &patch).map(|compared| compared.answer(kind));
        };
        let version = u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1);
        compared(&catalog, (run_id, &overlay), Some(patch_id), (version, version + 1))
            .map(|compared| compared.answer(kind))
    })
    .await?
}

/// What a patch would change that waits for a human, of the graph as it is; or would have changed, if it was rejected then.
fn supposed(
    catalog: &Catalog,
    (run_id, overlay): (RunId, &Overlay),
    patch: &Patch,
) -> Result<Compared, Box<Problem>> {
    let patch_id = patch.patch_id();
    let Some((version, operations)) = patch.held_for() else {
        let detail = format!("{patch_id} made no version of the graph: it was {}", patch.state());
        return Err(Problem::new(409, "patch_not_applied", detail));
    };
    let latest = u32::try_from(overlay.1.len()).unwrap_or(u32::MAX).saturating_add(1);
    let version = if patch.waits() { latest } else { version };
    let before = compared(catalog, (run_id, overlay), Some(patch_id), (version, version))?;
    let entry = &before.from.1;
    let made = read(operations)
        .and_then(|patch| remake(&entry.compiled, &patch))
        .map_err(|refusal| super::Refused::from(refusal).problem)?;
    let after = catalog.hold(entry, made, Turn::Blocking);
    Ok(Compared { to: (version.saturating_add(1), after), ..before })
}

/// `GET /v1/runs/{id}/graph/diff`
pub(in crate::api) async fn of_graph(services: &Services, head: &Parts, run_id: RunId) -> Answer {
    let kind = request::preferred(&head.headers, &[JSON, TEXT, SVG])?;
    let [from, to] = request::parameters(head, ["from", "to"])?;
    let (from, to) = (version("from", from.as_deref())?, version("to", to.as_deref())?);
    let (location, runs) = (services.locate(run_id).await?, services.runs.clone());
    let catalog = services.catalog.clone();
    blocking(move || {
        let overlay = runs.overlay(&location)?;
        let latest = u32::try_from(overlay.1.len()).unwrap_or(u32::MAX).saturating_add(1);
        let (from, to) = (from.unwrap_or(1), to.unwrap_or(latest));
        for (name, version) in [("from", from), ("to", to)] {
            if version > latest {
                let detail = format!("{name}={version}: the graph has the versions 1 to {latest}");
                return Err(Problem::new(404, "version_not_found", detail));
            }
        }
        compared(&catalog, (run_id, &overlay), None, (from, to)).map(|compared| compared.answer(kind))
    })
    .await?
}

fn version(name: &str, text: Option<&str>) -> Result<Option<u32>, Box<Problem>> {
    let Some(text) = text else { return Ok(None) };
    match text.parse() {
        Ok(0) | Err(_) => {
            let text: String = text.chars().take(32).collect();
            let detail = format!("{name}={text:?} is no version of a graph; 1, 2, ... are expected");
            Err(Problem::new(400, "invalid_parameter", detail))
        }
        Ok(version) => Ok(Some(version)),
    }
}

fn compared(
    catalog: &Catalog,
    (run_id, (base, layers)): (RunId, &Overlay),
    patch_id: Option<PatchId>,
    (from, to): (u32, u32),
) -> Result<Compared, Box<Problem>> {
    let at = |version: u32| {
        let layers = layers.get(..version.saturating_sub(1) as usize).unwrap_or(layers);
        catalog.with_layers(base, layers).map(|entry| (version, entry))
    };
    Ok(Compared { run_id, patch_id, from: at(from)?, to: at(to)? })
}
