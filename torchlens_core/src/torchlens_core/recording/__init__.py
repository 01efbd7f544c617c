"""Recording: values of selected sites of many runs, and no graph."""
