"""What goes to whom and when: audiences, templates, broadcasts and sequences."""
