"""What `odn route` is made of: the fit of each kind, what is measured of it, and what is written; `odn.stages.route` joins them."""
