"""The platform's own services: what runs beside the flow's, over the platform's own topics."""
