"""What jobs call: models, HTTP servers, commands, other workflows; one file each."""
