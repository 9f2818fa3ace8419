"""What builds the container image of the application (docs/deploy.md): ``make map``."""
