//! The files of the page, with the feature `docs`: Swagger UI as it is distributed, and what starts it.

use swagger_ui_redist::{SwaggerUi, SwaggerUiStaticFile};

/// Content type and content of a file; the empty name is the page itself.
pub(super) fn content(name: &str) -> Option<(&'static str, &'static [u8])> {
    match name {
        "" => return Some(("text/html; charset=utf-8", include_bytes!("index.html"))),
        "init.js" => return Some(("text/javascript; charset=utf-8", include_bytes!("init.js"))),
        _ => {}
    }
    let (wanted, content_type) = match name {
        "swagger-ui.css" => (SwaggerUiStaticFile::Css, "text/css; charset=utf-8"),
        "swagger-ui-bundle.js" => (SwaggerUiStaticFile::Js, "text/javascript; charset=utf-8"),
        "favicon-32x32.png" => (SwaggerUiStaticFile::Favicon32, "image/png"),
        _ => return None,
    };
    SwaggerUi::static_files().iter().find(|(file, _)| *file == wanted).map(|(_, content)| (content_type, *content))
}
