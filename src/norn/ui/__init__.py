"""Pages from templates, over the same operations as the API: no decisions, no SQL, no second wording of a fact."""
