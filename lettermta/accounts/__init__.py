"""The control plane: projects, routes, tokens and domains, which submission, delivery and events read and ``lettermta-admin`` changes."""
