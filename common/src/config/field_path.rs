//! Field paths: where in a configuration a value stands, as `services[1].real_servers[0].weight`.

use std::fmt;

/// One step of a [`FieldPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A named field of a struct.
    Field(String),
    /// A position in a list or tuple, from 0.
    Index(usize),
}

/// Where in a configuration a value stands. The empty path is the whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldPath(Vec<Step>);

impl FieldPath {
    /// The whole configuration.
    pub(super) fn root() -> FieldPath {
        FieldPath::default()
    }

    /// The field `name` of what stands here.
    pub(super) fn field(&self, name: &str) -> FieldPath {
        self.step(Step::Field(name.to_owned()))
    }

    /// The element at `position` of the list that stands here.
    pub(super) fn index(&self, position: usize) -> FieldPath {
        self.step(Step::Index(position))
    }

    /// The steps from the whole configuration to here.
    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    fn step(&self, step: Step) -> FieldPath {
        FieldPath(self.0.iter().cloned().chain([step]).collect())
    }
}

impl From<&serde_path_to_error::Path> for FieldPath {
    /// Enum variants and unknown steps have no place of their own in the text: they are left out.
    fn from(path: &serde_path_to_error::Path) -> FieldPath {
        use serde_path_to_error::Segment;
        FieldPath(
            path.iter()
                .filter_map(|segment| match segment {
                    Segment::Seq { index } => Some(Step::Index(*index)),
                    Segment::Map { key } => Some(Step::Field(key.clone())),
                    Segment::Enum { .. } | Segment::Unknown => None,
                })
                .collect(),
        )
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the configuration");
        }
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if position == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
