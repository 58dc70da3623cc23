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

/// The whole Plan as text.
pub fn write(plan: &Plan, format: Format) -> String {
    // Numbers, strings, lists and tables with text keys: both formats can say all of it.
    let text = match format {
        Format::Json => serde_json::to_string_pretty(plan).unwrap_or_default(),
        Format::Toml => toml::to_string_pretty(plan).unwrap_or_default(),
    };
    text.trim_end().to_owned() + "\n"
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
