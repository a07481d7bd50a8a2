//! One operation of the description, built member by member.

use serde_json::{Map, Value as Json, json};

/// What an operation is described by.
pub(super) struct Operation {
    path: &'static str,
    method: &'static str,
    object: Map<String, Json>,
    parameters: Vec<Json>,
    responses: Map<String, Json>,
}

/// Begins with `"GET /path"`, its operationId and what it does.
pub(super) fn operation(route: &'static str, id: &str, summary: &str) -> Operation {
    let (method, path) = route.split_once(' ').unwrap();
    let mut object = Map::new();
    object.insert("operationId".into(), id.into());
    object.insert("summary".into(), summary.into());
    let parameters = path.split('/').filter_map(|part| part.strip_prefix('{')).map(|part| {
        let name = part.trim_end_matches('}');
        json!({"$ref": format!("#/components/parameters/{name}")})
    });
    let parameters = parameters.collect();
    let made = Operation { path, method, object, parameters, responses: Map::new() };
    made.problem("default", "Anything that is not a success")
}

impl Operation {
    /// A parameter of the query that `example` fits.
    pub(super) fn query(mut self, name: &str, schema: &Json, example: &Json, description: &str) -> Self {
        self.parameters.push(json!({"name": name, "in": "query", "required": false, "schema": schema,
            "example": example, "description": description}));
        self
    }

    /// A header that `components.parameters` describes.
    pub(super) fn header(mut self, name: &str) -> Self {
        self.parameters.push(json!({"$ref": format!("#/components/parameters/{name}")}));
        self
    }

    /// The body that it takes, with an example; `required` or not.
    pub(super) fn body(mut self, schema: &Json, example: &Json, required: bool) -> Self {
        let content =
            json!({"application/json": {"schema": schema, "examples": {"one": {"value": example}}}});
        self.object.insert("requestBody".into(), json!({"required": required, "content": content}));
        self
    }

    /// The body may be YAML too.
    pub(super) fn or_yaml(mut self) -> Self {
        if let Some(content) = self.object.get_mut("requestBody").and_then(|body| body.get_mut("content")) {
            content["application/yaml"] = json!({"schema": {}});
        }
        self
    }

    /// A JSON body that it answers with.
    pub(super) fn answers(self, status: u16, description: &str, schema: &Json) -> Self {
        self.answers_with((status, "application/json"), description, schema)
    }

    /// A body of any media type that it answers with.
    pub(super) fn answers_with(mut self, kind: (u16, &str), description: &str, schema: &Json) -> Self {
        let (status, media) = kind;
        let body = json!({"description": description, "content": {media: {"schema": schema}}});
        self.responses.insert(status.to_string(), body);
        self
    }

    /// Bytes of a media type that it answers with, of which no schema says anything: they are a part of such a document.
    pub(super) fn answers_part(mut self, kind: (u16, &str), description: &str) -> Self {
        let (status, media) = kind;
        let body = json!({"description": description, "content": {media: {}}});
        self.responses.insert(status.to_string(), body);
        self
    }

    /// It refuses with a page for people; with a problem document where it is refused before it is looked at.
    pub(super) fn or_page(mut self, status: u16) -> Self {
        let problem = json!({"$ref": "#/components/schemas/Problem"});
        let content = json!({"text/html; charset=utf-8": {"schema": {"type": "string"}},
            "application/problem+json": {"schema": problem}});
        let body = json!({"description": "What is wrong, for people or for programs", "content": content});
        self.responses.insert(status.to_string(), body);
        self
    }

    /// It answers without a body.
    pub(super) fn answers_nothing(mut self, status: u16, description: &str) -> Self {
        self.responses.insert(status.to_string(), json!({"description": description}));
        self
    }

    /// As a run that is started now would run it, or not at all when the caller has it.
    pub(super) fn or_effective(self) -> Self {
        let about = "With the gates that a run started now would have by the node's policy";
        self.query("effective", &json!({"type": "boolean"}), &json!(true), about).or_not_modified()
    }

    /// 304 for whoever knows the answer already.
    pub(super) fn or_not_modified(mut self) -> Self {
        self.responses.insert("304".into(), json!({"description": "What If-None-Match names still stands"}));
        self.header("If-None-Match")
    }

    /// Problems by status, beside those that any operation may have.
    pub(super) fn problems(mut self, all: &[(&str, &str)]) -> Self {
        for (status, description) in all {
            self = self.problem(status, description);
        }
        self
    }

    fn problem(mut self, status: &str, description: &str) -> Self {
        let schema = json!({"$ref": "#/components/schemas/Problem"});
        let content = json!({"application/problem+json": {"schema": schema}});
        self.responses.insert(status.into(), json!({"description": description, "content": content}));
        self
    }

    /// Takes no token.
    pub(super) fn public(mut self) -> Self {
        self.object.insert("security".into(), json!([]));
        self
    }

    /// Into the description with it.
    pub(super) fn add(mut self, paths: &mut Map<String, Json>) {
        if !self.object.contains_key("security") {
            let known =
                [("401", "No token, or one not known here"), ("403", "The token's role is too small")];
            for (status, description) in known {
                if !self.responses.contains_key(status) {
                    self = self.problem(status, description);
                }
            }
            self = self.header("Aob-Workspace");
        }
        let Self { path, method, mut object, parameters, mut responses } = self;
        if parameters.iter().any(|one| one["$ref"] == "#/components/parameters/Idempotency-Key") {
            // Said of all that is done once, so that none forgets it.
            let replayed =
                json!({"schema": {"const": "true"}, "description": "It was done before, under this key"});
            for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with('2')) {
                response["headers"] = json!({"Idempotent-Replayed": replayed});
            }
        }
        if !parameters.is_empty() {
            object.insert("parameters".into(), Json::Array(parameters));
        }
        object.insert("responses".into(), Json::Object(responses));
        let place = paths.entry(path).or_insert_with(|| json!({}));
        place[method.to_ascii_lowercase()] = Json::Object(object);
    }
}
