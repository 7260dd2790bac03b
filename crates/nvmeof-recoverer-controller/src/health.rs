//! `/metrics`, `/healthz` and `/readyz`, over plain HTTP inside the cluster.
//!
//! A replica is healthy while its loop turns, whether or not it leads and whether or not anybody
//! answers it: starting it again would not bring an API server back, and would lose what it has
//! seen. It is ready from the moment at which it has begun to listen; nothing is sent to it but
//! questions about itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::controller::Metrics;

/// A question may take that long, whoever asks.
const DEADLINE: Duration = Duration::from_secs(5);
/// The loop turns every few seconds, and may wait for a slow API server.
const STALLED: Duration = Duration::from_secs(120);
/// Whoever asks more at once waits.
const AT_ONCE: usize = 32;

/// Answers until the process ends.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let slots = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was lost before it was one");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &metrics);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // Somebody who asks slowly is not worth more.
            let _ = tokio::time::timeout(DEADLINE, connection).await;
            drop(slot);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    respond(request.method(), request.uri().path(), metrics)
}

fn respond(method: &Method, path: &str, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (code, text) = match (method, path) {
        (&Method::GET, "/metrics") => (StatusCode::OK, metrics.page()),
        (&Method::GET, "/readyz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET, "/healthz") if metrics.turned_within(STALLED) => {
            (StatusCode::OK, "ok\n".to_owned())
        }
        (&Method::GET, "/healthz") => {
            (StatusCode::SERVICE_UNAVAILABLE, "the loop does not turn\n".to_owned())
        }
        _ => (StatusCode::NOT_FOUND, "not here\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_does_not_turn_is_not_healthy() {
        let metrics = Metrics::default();
        let code = |path| respond(&Method::GET, path, &metrics).status();
        assert_eq!(code("/healthz"), StatusCode::SERVICE_UNAVAILABLE);
        metrics.turned();
        assert_eq!(code("/healthz"), StatusCode::OK);
        assert_eq!((code("/metrics"), code("/x")), (StatusCode::OK, StatusCode::NOT_FOUND));
    }

    #[test]
    fn the_page_is_what_prometheus_reads() {
        let page = Metrics::default().page();
        for line in page.lines() {
            let sample = line.split(' ').count() == 2;
            assert!(line.starts_with("# ") || sample, "{line}");
        }
        assert!(page.contains("nvmeof_recoverer_osds 0\n"), "{page}");
    }
}
