"""Folders of models in Hugging Face's layout, judged without torch before a library reads them."""
