"""Any open_clip model, for every stage that needs one: `weights` finds and names its files, `model` embeds with it.

Models are open_clip's; nothing here knows of columns.
"""
