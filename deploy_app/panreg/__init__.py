"""The application's packages, from what is read to what is written; see docs/deploy.md."""
