//! Plans as JSON and TOML.

use std::path::Path;

use super::error::Error;
use super::spec::Plan;
use super::validate::validate;

/// How a Plan is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, indented.
    Json,
    /// TOML.
    Toml,
}

/// The whole Plan as text. Both formats are text in UTF-8, so paths that are not have no place in them.
pub fn write(plan: &Plan, format: Format) -> Result<String, Error> {
    let (name, text) = match format {
        Format::Json => ("JSON", serde_json::to_string_pretty(plan).map_err(Into::into)),
        Format::Toml => ("TOML", toml::to_string_pretty(plan).map_err(Into::into)),
    };
    let text = text.map_err(|source| Error::NotWritable { what: culprit(plan), format: name, source })?;
    Ok(text.trim_end().to_owned() + "\n")
}

/// What it must be that cannot be written.
fn culprit(plan: &Plan) -> String {
    let boot = [("kernel", Some(&plan.boot.kernel)), ("initrd", plan.boot.initrd.as_ref())];
    let cdevs = plan.functions().map(|(_, _, function)| ("character device", Some(&function.cdev)));
    let paths = boot.into_iter().chain(cdevs).filter_map(|(what, path)| Some((what, path?)));
    match paths.into_iter().find(|(_, path)| path.to_str().is_none()) {
        Some((what, path)) => format!("{what} {path:?}"),
        None => "the plan".into(),
    }
}

/// Reads a Plan from a file in either format and checks that it agrees with itself.
pub fn read(path: &Path) -> Result<Plan, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::ReadFile { path: path.into(), source })?;
    let parsed = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    } else {
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            format!("line {}: {}", 1 + before.matches('\n').count(), error.message().replace('\n', " "))
        })
    };
    let plan: Plan = parsed.map_err(|message| Error::NotAPlan { path: path.into(), message })?;
    validate(&plan)?;
    Ok(plan)
}
