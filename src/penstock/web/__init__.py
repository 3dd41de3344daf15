"""The door and the page: HTTP over what a flow declares. It knows no domain."""
