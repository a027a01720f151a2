"""The control plane: projects, routes and tokens, which submission, delivery and events read and ``lettermta-admin`` changes."""
