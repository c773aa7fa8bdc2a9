"""``skd tune``: the best settings of each arm, searched for with equal effort, on the validation split alone."""
