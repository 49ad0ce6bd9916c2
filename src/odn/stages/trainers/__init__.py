"""How a depth is trained, one module a family of `search.mode`; `odn.stages.train` chooses."""
