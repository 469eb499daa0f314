//! OpenAPI v3, as far as `kubectl explain` and `kubectl apply` read it.

use serde_json::{Map, Value, json};

use crate::kinds::{Form, Kind, Registry, table_name};

/// Answers a path below `/openapi/v3`; `None` for any other.
pub fn answer(registry: &Registry, path: &str) -> Option<Value> {
    let rest = path.strip_prefix("/openapi/v3")?.trim_matches('/');
    if rest.is_empty() {
        return Some(index(registry));
    }
    let parts: Vec<&str> = rest.split('/').collect();
    let (group, version) = match parts.as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return None,
    };
    Some(document(registry, group, version))
}

fn base(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

fn index(registry: &Registry) -> Value {
    let paths: Map<String, Value> = registry
        .all()
        .map(|k| (base(k), json!({"serverRelativeURL": format!("/openapi/v3/{}", base(k))})))
        .collect();
    json!({"paths": paths})
}

fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for kind in registry.all().filter(|k| k.group == group && k.version == version) {
        let name = format!("io.{}.{}.{}", table_name(group, &kind.plural), version, kind.kind);
        let mut schema = schema_of(kind, &mut schemas);
        let gvk = json!([{"group": group, "version": version, "kind": kind.kind}]);
        schema["x-kubernetes-group-version-kind"] = gvk.clone();
        schemas.insert(name.clone(), schema);
        add_paths(&mut paths, kind, &name, &gvk[0]);
    }
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.33.0"}, "paths": paths, "components": {"schemas": schemas}})
}

/// kubectl looks here for whether the server itself refuses unknown fields.
fn add_paths(paths: &mut Map<String, Value>, kind: &Kind, schema: &str, gvk: &Value) {
    let space = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{}{space}/{}", base(kind), kind.plural);
    let content = json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
    let operation = |action: &str| {
        json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk, "responses": {"200": {"description": "OK", "content": content}},
               "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}, {"name": "dryRun", "in": "query", "schema": {"type": "string"}}]})
    };
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({"get": operation("get"), "put": operation("put"), "patch": operation("patch"), "delete": operation("delete")}),
    );
    paths.insert(collection, json!({"get": operation("list"), "post": operation("post")}));
}

fn schema_of(kind: &Kind, schemas: &mut Map<String, Value>) -> Value {
    match &kind.form {
        Form::Custom(custom) => {
            let mut schema = custom.raw.clone();
            for (field, about) in
                [("apiVersion", "Version of the schema of this object."), ("kind", "Kind of this object.")]
            {
                schema["properties"][field] = json!({"type": "string", "description": about});
            }
            if schema.pointer("/properties/metadata/description").is_none() {
                schema["properties"]["metadata"] =
                    json!({"type": "object", "description": "Standard object's metadata."});
            }
            schema
        }
        Form::Typed { schema, .. } => {
            let mut schema = schema();
            if let Some(Value::Object(parts)) = crate::json::take(&mut schema, "/components")
                .and_then(|mut c| crate::json::take(&mut c, "/schemas"))
            {
                schemas.extend(parts);
            }
            crate::json::take(&mut schema, "/$schema");
            schema
        }
    }
}
