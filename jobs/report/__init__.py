"""The report: one self-contained HTML page about a workspace, and about an experiment in it.

markup, plot, page      how it is drawn: escaped markup, plots as SVG, the page
sources                 what each figure was made of, and by which command
teachers … queries      the sections, each a function from the workspace to figures, or to what is missing
build                   puts them together
"""
