// Nothing of its own: the shared library is the whole of terrace_capi behind libterrace.map.
