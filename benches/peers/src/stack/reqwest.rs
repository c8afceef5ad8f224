//! reqwest-middleware stacks for two versions of reqwest, whose types are not interchangeable.

macro_rules! stack {
    ($module:ident, $reqwest:ident, $middleware:ident) => {
        pub(crate) mod $module {
            use std::sync::Arc;

            use async_trait::async_trait;
            use http::{Extensions, HeaderValue};
            use $middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
            use $reqwest::header::AUTHORIZATION;
            use $reqwest::{Request, Response, Url};

            use crate::peers::{BoxError, Call, Client};
            use crate::server::{Api, Target};
            use crate::stack::{carries_token, static_header};

            /// Creates the client that opens all connections of a stack.
            pub(crate) fn http_client() -> Result<$reqwest::Client, BoxError> {
                let builder = $reqwest::Client::builder().no_proxy();
                Ok(builder
                    .redirect($reqwest::redirect::Policy::none())
                    .build()?)
            }

            /// Creates the stack, with at most one middleware.
            pub(crate) fn client(
                target: &Target,
                middleware: Option<Arc<dyn Middleware>>,
            ) -> Result<Arc<dyn Client>, BoxError> {
                let mut builder = ClientBuilder::new(http_client()?);
                if let Some(middleware) = middleware {
                    builder = builder.with_arc(middleware);
                }
                if target.api != Api::Loopback {
                    builder = builder.with(Canned {
                        open: target.api == Api::CannedOpen,
                    });
                }
                Ok(Arc::new(Stack {
                    client: builder.build(),
                    url: target.api_url.parse()?,
                }))
            }

            /// Returns the middleware that sets a static header.
            pub(crate) fn static_middleware() -> Arc<dyn Middleware> {
                Arc::new(StaticHeader(static_header()))
            }

            struct Stack {
                client: ClientWithMiddleware,
                url: Url,
            }

            impl Call for Stack {
                async fn call(&self) -> Result<u16, BoxError> {
                    let response = self.client.get(self.url.clone()).send().await?;
                    let status = response.status().as_u16();
                    response.bytes().await?;
                    Ok(status)
                }
            }

            struct StaticHeader(HeaderValue);

            #[async_trait]
            impl Middleware for StaticHeader {
                async fn handle(
                    &self,
                    mut request: Request,
                    extensions: &mut Extensions,
                    next: Next<'_>,
                ) -> $middleware::Result<Response> {
                    request.headers_mut().insert(AUTHORIZATION, self.0.clone());
                    next.run(request, extensions).await
                }
            }

            /// Responds in place of the HTTP client.
            struct Canned {
                open: bool,
            }

            #[async_trait]
            impl Middleware for Canned {
                async fn handle(
                    &self,
                    request: Request,
                    _: &mut Extensions,
                    _: Next<'_>,
                ) -> $middleware::Result<Response> {
                    let ok = self.open || carries_token(request.headers().get(AUTHORIZATION));
                    Ok(respond(ok))
                }
            }

            /// Returns the response of the canned API.
            pub(crate) fn respond(ok: bool) -> Response {
                let mut response = http::Response::new("");
                if !ok {
                    *response.status_mut() = http::StatusCode::UNAUTHORIZED;
                }
                response.into()
            }
        }
    };
}

// For bearer-auth and azure_core's transport.
stack!(v13, reqwest, reqwest_middleware);
// For aliri_reqwest, reqwest-auth and middle.
stack!(v12, reqwest_012, reqwest_middleware_04);
