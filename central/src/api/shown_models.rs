//! Models of device templates as answers show them, made once for each revision.
//!
//! A model of a few megabytes takes a second and some hundred megabytes to read. Who may only read templates could otherwise have that
//! done as often as it asks. They are made one at a time.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::template_model::ModelBody;
use crate::store::templates::DeviceTemplate;
use crate::templates::model_of;

/// Bytes of all that are kept.
const KEPT_BYTES_MAX: usize = 16 << 20;
const WRITES: &str = "texts and numbers are written to memory";

/// The text of a [`ModelBody`]. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ShownModel(Arc<RawValue>);

impl Serialize for ShownModel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Those that were shown last.
#[derive(Debug, Default)]
pub(super) struct ShownModels(Mutex<VecDeque<(Key, ShownModel)>>);

/// Names a state of a model. The hash tells one from that of a deleted template of the same id.
type Key = (String, i64, u64);

impl ShownModels {
    /// The model of a template. Blocks while another one is made.
    pub(super) fn of(&self, template: &DeviceTemplate) -> ShownModel {
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(&template.document.capability_model).expect(WRITES).hash(&mut hasher);
        let key = (template.id.clone(), template.revision, hasher.finish());
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().position(|(of, _)| *of == key).and_then(|at| kept.remove(at));
        let model = match found {
            Some((_, model)) => model,
            None => {
                let body = ModelBody::from(&model_of(&template.document));
                ShownModel(serde_json::value::to_raw_value(&body).expect(WRITES).into())
            }
        };
        kept.push_back((key, model.clone()));
        let mut bytes: usize = kept.iter().map(|(_, model)| model.0.get().len()).sum();
        while bytes > KEPT_BYTES_MAX
            && let Some((_, oldest)) = kept.pop_front()
        {
            bytes -= oldest.0.get().len();
        }
        model
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::templates::TemplateDocument;

    fn template(id: &str, revision: i64, telemetry: &str) -> DeviceTemplate {
        let model = json!({"@id": id, "@type": "Interface", "contents": [
            {"@type": "Telemetry", "name": telemetry, "schema": "double"}]});
        let document = json!({"@type": ["ModelDefinition", "DeviceModel"], "displayName": "x", "capabilityModel": model});
        let document: TemplateDocument = serde_json::from_value(document).unwrap();
        DeviceTemplate { id: id.to_owned(), document, revision }
    }

    #[test]
    fn a_model_is_made_once_for_each_state_of_its_template() {
        let models = ShownModels::default();
        let text = |template: &DeviceTemplate| models.of(template).0;
        let first = template("dtmi:a:b;1", 1, "temperature");
        let made = text(&first);
        assert!(made.get().contains("temperature"));
        assert!(Arc::ptr_eq(&made, &text(&first)), "the same state");
        assert!(text(&template("dtmi:a:b;1", 2, "pressure")).get().contains("pressure"), "a later revision");
        // Deleted, and stored again with a revision that was there.
        assert!(text(&template("dtmi:a:b;1", 1, "speed")).get().contains("speed"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let models = ShownModels::default();
        let name = |n: usize| format!("n{n}");
        for n in 0..40 {
            let model = json!({"@id": format!("dtmi:a:b{n};1"), "@type": "Interface", "description": "x".repeat(400),
                "contents": (0..300).map(|of| json!({"@type": "Telemetry", "name": name(of), "schema": "double",
                    "description": "y".repeat(500)})).collect::<Vec<_>>()});
            let mut of = template(&format!("dtmi:a:b{n};1"), 1, "t");
            of.document.capability_model = serde_json::from_value(model).unwrap();
            let _shown = models.of(&of);
        }
        let kept = models.0.lock().unwrap();
        let bytes: usize = kept.iter().map(|(_, model)| model.0.get().len()).sum();
        assert!(bytes <= KEPT_BYTES_MAX && !kept.is_empty(), "{bytes}");
    }
}
