"""Review: people look at an evaluation, vote blind on its pictures, and approve or reject it. Knows no model.

`pairs` what is shown, `votes` what people said, `agreement` what that is worth, `approval` what a decision rests on,
`app` the pages and `server` the process that serves them.
"""
