"""What the gateway speaks of: frozen Structs, enums and transition tables (P)."""
