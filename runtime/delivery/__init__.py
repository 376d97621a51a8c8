"""From events to subscribers: journal, publisher, replay server, client, metrics."""
