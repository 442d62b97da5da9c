"""The report: one self-contained HTML page about a workspace, or about an experiment in it.

templates/, markup      Jinja2 templates, and the module that renders them
page, plot              the page and its figures; one plot as SVG
sources                 the commands that made the data of a figure
teachers … queries      the sections: each function turns the workspace into figures, or names what is missing
build                   puts the sections together
"""
