"""The ground floor: configuration, files, meshes, run log, progress and randomness; imports no other room."""
