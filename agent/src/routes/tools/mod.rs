//! `POST /v1/tools/{name}`: one route for each tool, made from the tool's types and its handler.

mod form;
mod stream;

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, post},
};
use corehold_types::Problem;
use http::{HeaderValue, header};

use crate::{
    agent::Agent,
    audit::{Notes, Pending, Recorded},
    calls::{self, Json, Share},
    handler::{Call, Events, Handler, Progress, Surface},
    server::{RequestId, body, problem::Failure},
};
use form::Form;

/// The route of one tool.
pub(crate) fn route<T: Handler>() -> MethodRouter<Arc<Agent>> {
    post(call::<T>)
}

async fn call<T: Handler>(
    State(agent): State<Arc<Agent>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let notes = Notes::default();
    let answer = answer::<T>(agent, request_id, request, notes.clone()).await;
    let mut response = answer.unwrap_or_else(|problem| {
        let mut response = Failure(problem).into_response();
        response.extensions_mut().insert(Recorded);
        response
    });
    if notes.is_replayed() {
        response.headers_mut().insert(calls::REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

async fn answer<T: Handler>(
    agent: Arc<Agent>,
    request_id: RequestId,
    request: Request,
    notes: Notes,
) -> Result<Response, Problem> {
    let (head, request_body) = request.into_parts();
    let caller = agent.access.identify(&head.headers, T::STANDING).inspect_err(|problem| {
        Pending::new(&agent.audit, None, Surface::Http, &request_id.0, T::NAME).refuse(problem.code);
    })?;
    let share = Share::of(&agent.room);
    let mut call = Call {
        agent,
        caller,
        surface: Surface::Http,
        idempotency_key: None,
        request_id: request_id.0.to_string(),
        notes,
        progress: Progress::default(),
        share: share.clone(),
    };
    let refuse = |problem: &Problem| calls::refused(&call, T::NAME, problem);
    call.caller.need(T::SCOPE).inspect_err(refuse)?;
    let form = Form::of(&head.headers);
    let limits = &call.agent.config.limits;
    let coming = body::json::<T::Request>(&head.headers, request_body, limits, &call.agent.room);
    let (request, taken) = coming.await.inspect_err(refuse)?;
    share.keep_request(taken);
    if T::CHANGES {
        call.idempotency_key = calls::key_in(&head.headers).inspect_err(refuse)?;
    }
    match form {
        Form::Json => {
            let response = calls::run::<T>(call, request, Events::none()).await?;
            Ok(json(Json::of::<T>(response, &share).await?))
        }
        Form::Stream(encoding) => stream::begin::<T>(call, request, encoding).await,
    }
}

fn json(answer: Json) -> Response {
    let mut response = Response::new(answer.into_body());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
