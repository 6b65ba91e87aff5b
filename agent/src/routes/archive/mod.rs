//! `GET, PUT /v1/archive`: a directory of the workspace as one archive, sent or received.

mod receive;
mod send;

use std::sync::Arc;

use axum::{
    middleware,
    routing::{MethodRouter, get, put},
};
use corehold_types::{Code, Problem, WorkspacePath};
use http::Uri;

pub(super) use super::query;
use super::repeated;
use crate::agent::Agent;

/// The route.
pub(crate) fn route(agent: &Arc<Agent>) -> MethodRouter<Arc<Agent>> {
    let once = middleware::from_fn_with_state(Arc::clone(agent), repeated::once);
    get(send::get).merge(put(receive::put).route_layer(once))
}

/// The values of a query's parameters, in this order. Others are refused.
fn parameters<const N: usize>(uri: &Uri, names: [&str; N]) -> Result<[Vec<Vec<u8>>; N], Problem> {
    let mut values = std::array::from_fn(|_| Vec::new());
    for query::Pair { name, value } in query::pairs(uri)? {
        let Some(index) = names.iter().position(|known| known.as_bytes() == name) else {
            let (name, known) = (name.escape_ascii(), names.join(" and "));
            return Err(Problem::new(
                Code::InvalidRequest,
                format!("the query's {name} is unknown; there are {known}"),
            ));
        };
        values[index].push(value);
    }
    Ok(values)
}

/// Of a parameter that is given more than once, the last counts.
fn path_or_root(mut path: Vec<Vec<u8>>) -> WorkspacePath {
    path.pop().map_or_else(|| ".".into(), |path| WorkspacePath::from_bytes(&path))
}

/// `true` or `false`; false when it isn't given.
fn flag(name: &str, mut values: Vec<Vec<u8>>) -> Result<bool, Problem> {
    match values.pop().as_deref() {
        None | Some(b"false") => Ok(false),
        Some(b"true") => Ok(true),
        Some(other) => Err(Problem::new(
            Code::InvalidRequest,
            format!("{name}: true or false was expected, not {}", other.escape_ascii()),
        )),
    }
}
