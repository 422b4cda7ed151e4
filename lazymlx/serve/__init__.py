"""A local server that chat clients speak to. `app` has the routes, `worker` the thread that owns the model."""
