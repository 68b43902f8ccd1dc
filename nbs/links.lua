-- index.ipynb is also the README, one folder up: nbs/02_loss.ipynb there is 02_loss.ipynb here.
function Link(link)
  link.target = link.target:gsub('^nbs/', '')
  return link
end
