"""A finished run and images in: predictions, figures on another set, exported models, evidence maps out."""
