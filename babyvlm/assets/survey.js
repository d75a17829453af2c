// The survey page: consent, a person's own order of items, attention checks, and a file that is saved on this device.
(() => {
  const survey = JSON.parse(document.getElementById('survey-data').textContent)
  const session = Array.from(crypto.getRandomValues(new Uint8Array(6)), b => b.toString(16).padStart(2, '0')).join('')
  const columns = ['survey', 'person', 'session', 'kind', 'item', 'round', 'task', 'answer', 'place', 'right', 'milliseconds', 'trial', 'given',
    'rt', 'stimulus', 'response', 'trial_type', 'trial_index', 'time_elapsed', 'plugin_version']   // the second line is jsPsych's own
  const rows = []
  let person = '', given = 0, number = 0, agreed = false, saved = false

  const stop = document.getElementById('stop'), bar = document.getElementById('progress')
  window.addEventListener('beforeunload', e => { if (rows.length && !saved) e.preventDefault() })

  // one line a row; a cell is quoted whenever it could be read as something else, and one that a spreadsheet would run gets an apostrophe
  const marked = t => /^'*[=+\-@\t\r\n＝＋－＠]/.test(t) && (isNaN(t) || t !== t.trim()) ? "'" + t : t
  const cell = v => { const t = marked(String(v ?? '')); return /[",\n\r]/.test(t) ? '"' + t.replaceAll('"', '""') + '"' : t }
  const csv = list => [columns.join(','), ...list.map(r => columns.map(c => cell(r[c])).join(','))].join('\n') + '\n'

  function save() {
    const text = survey.save === 'json' ? JSON.stringify(rows, null, 1) + '\n' : csv(rows)
    const link = document.createElement('a')
    link.href = URL.createObjectURL(new Blob([text], {type: survey.save === 'json' ? 'application/json' : 'text/csv'}))
    link.download = `${survey.survey}_${person}_${session}.${survey.save}`
    document.body.append(link); link.click(); link.remove()
    saved = true
    return link.download
  }

  // pictures come from one table, so that a picture shown twice is stored once
  const fill = root => root.querySelectorAll('img[data-picture]').forEach(i => { i.src = survey.pictures[i.dataset.picture] })

  function play(clip) {
    const frames = [...clip.querySelectorAll('img')]
    let at = 0
    clearInterval(clip.timer)
    const show = () => frames.forEach((f, i) => f.classList.toggle('now', i === at))
    show()
    clip.timer = setInterval(() => { if (++at >= frames.length) { clearInterval(clip.timer); return } show() }, survey.frame_ms)
  }

  const ROW = ['1', '2', '3', '4', '5', '6', '7', '8', '9', '0', '-', '=']
  const keys = t => t.letters ? t.choices.map((_, i) => 'abcdefghijkl'[i]) : ROW.slice(0, t.choices.length)
  const buttons = () => [...document.querySelectorAll('#jspsych-html-button-response-btngroup button')]

  // the largest size at which pictures and all answers can be seen at once; one size within a question
  function fit(root) {
    if (!root.querySelector('img')) return
    let size = 280
    do root.style.setProperty('--picture', `${size}px`)
    while (document.documentElement.scrollHeight > innerHeight && (size -= 10) >= 70)
  }
  document.addEventListener('pointermove', () => document.body.classList.add('moved'))

  function progress() {
    bar.setAttribute('aria-valuenow', Math.round(100 * number / given))
    bar.firstChild.style.width = `${100 * number / given}%`
  }

  let listen = null
  function wire(t) {   // after a screen is drawn
    const root = document.querySelector('.jspsych-display-element')
    fill(root)
    root.querySelectorAll('.clip').forEach(c => { play(c); c.onclick = () => play(c) })
    fit(root)
    window.onresize = () => fit(root)
    root.querySelector('h2')?.focus(); scrollTo(0, 0)
    document.body.classList.remove('moved')   // a pointer that rests where the last answer was chooses nothing
    const names = keys(t)
    listen = e => {
      if (e.repeat || e.ctrlKey || e.metaKey || e.altKey || e.target.tagName === 'INPUT') return
      const k = e.key.toLowerCase(), clip = root.querySelector('.clip')
      if (k === ' ' && clip && e.target.tagName !== 'BUTTON') { e.preventDefault(); play(clip); return }
      const at = names.indexOf(k) >= 0 ? names.indexOf(k) : ROW.indexOf(k)
      if (at >= 0 && at < t.choices.length) { e.preventDefault(); buttons()[at]?.click() }
    }
    document.addEventListener('keydown', listen)
  }
  const unwire = () => { document.removeEventListener('keydown', listen); document.querySelectorAll('.clip').forEach(c => clearInterval(c.timer)) }

  // two runs one after the other: the questions are a timeline of their own, since they depend on the number
  let jsPsych = initJsPsych({display_element: 'survey'})

  const button = (html, key) => `<button type="button" class="jspsych-btn">${html}${key && key !== html ? `<kbd>${key}</kbd>` : ''}</button>`

  function screen(t, kind) {   // one question as a jsPsych trial
    const k = t.choices.length
    let asked = ''
    let shift = 0
    return {
      type: jsPsychHtmlButtonResponse, stimulus: t.html, save_trial_parameters: {stimulus: false, choices: false},
      choices: () => { shift = t.turn ? (Number(person) + number) % k : 0; return t.choices.map((_, i) => t.choices[(i + shift) % k]) },
      button_html: (html, i) => button(html, keys(t)[i].toUpperCase()),
      enable_button_after: survey.pause_ms, button_layout: 'flex',
      on_load: () => { wire(t); asked = document.querySelector('.ask h2').textContent },
      on_finish: d => {
        unwire()
        if (d.response == null) return   // stopped while this question was open
        const answer = (d.response + shift) % k
        rows.push({survey: survey.survey, person, session, kind, item: t.item, round: t.round, task: t.task, answer,
          place: d.response, right: kind === 'check' ? Number(answer === t.gold) : '', milliseconds: Math.round(d.rt), trial: number, given,
          rt: d.rt, stimulus: asked, response: d.response, trial_type: d.trial_type, trial_index: d.trial_index, time_elapsed: d.time_elapsed,
          plugin_version: d.plugin_version})
        number += 1
        document.body.dataset.answered = number
        progress()
      }}
  }

  const page = (html, choices, more = {}) => ({type: jsPsychHtmlButtonResponse, stimulus: `<div class="text">${html}</div>`, choices,
    save_trial_parameters: {stimulus: false, choices: false}, button_layout: 'flex',
    button_html: html => button(html), on_load: () => document.querySelector('.text h2')?.focus(), ...more})

  const consent = page(survey.consent, [survey.words.agree, survey.words.decline], {
    on_finish: d => {
      agreed = d.response === 0
      if (!agreed) jsPsych.abortExperiment(`<p>${survey.words.declined}</p>`)
    }})

  const who = page(`<h2><label for="person">${survey.words.number}</label></h2><p style="text-align:center"><input id="person" inputmode="numeric" autocomplete="off"></p>`,
    [survey.words.go], {
    on_load: () => {
      const field = document.getElementById('person'), go = buttons()[0]
      const check = () => { go.disabled = !/^[1-9]\d{0,5}$/.test(field.value.trim()) }
      const asked = new URLSearchParams(location.search).get('person') || location.hash.slice(1)
      field.value = /^\d+$/.test(asked) ? asked : ''
      field.oninput = check
      field.onkeydown = e => { if (e.key === 'Enter' && !go.disabled) go.click() }
      go.addEventListener('click', () => { person = field.value.trim() }, true)
      check(); field.focus()
    }})

  // the person's own row of the plan: items in order, a check after every few of them
  function plan() {
    const order = survey.orders[(Number(person) - 1) % survey.orders.length]
    const gap = Math.max(1, Math.ceil(order.length / (survey.checks.length + 1)))
    const parts = new Set(order.map(u => survey.units[u][0].task)).size, out = []
    let next = 0, part = 1
    order.forEach((u, i) => {
      const one = survey.units[u], before = i && survey.units[order[i - 1]]
      if (before && before[0].task !== one[0].task) {
        const title = survey.words.part.replace('{part}', ++part).replace('{parts}', parts)
        out.push([`<h2 tabindex="-1">${title}</h2><p>${survey.words.rest}</p>`, 'break'])
      } else if (before && before.length > 1 && one[0].round === 0 && one.length > 4) out.push([`<h2 tabindex="-1">${survey.words.fresh}</h2>`, 'break'])
      survey.units[u].forEach(t => out.push([t, 'item']))
      if ((i + 1) % gap === 0 && next < survey.checks.length) out.push([survey.checks[next++], 'check'])
    })
    while (next < survey.checks.length) out.push([survey.checks[next++], 'check'])
    return out
  }

  const rest = html => page(html, [survey.words.go])
  const intro = page(survey.intro, [survey.words.start])

  async function ask() {
    const steps = plan()
    given = steps.filter(([, kind]) => kind !== 'break').length
    stop.hidden = bar.hidden = false
    progress()
    jsPsych = initJsPsych({display_element: 'survey'})
    await jsPsych.run(steps.map(([t, kind]) => kind === 'break' ? rest(t) : screen(t, kind)))
    finish()
  }

  function finish() {
    stop.hidden = bar.hidden = true
    const box = document.getElementById('survey')
    const name = rows.length ? save() : ''
    box.innerHTML = `<div class="text"><h2 role="status">${survey.words.thanks}</h2><p id="file"></p><button id="again" class="jspsych-btn">${survey.words.again}</button></div>`
    document.getElementById('file').textContent = name
    document.getElementById('again').onclick = save
  }

  stop.textContent = survey.words.stop
  bar.setAttribute('aria-label', survey.words.progress)
  stop.onclick = () => { if (confirm(survey.words.sure)) { unwire(); jsPsych.abortExperiment('') } }
  jsPsych.run([consent, who, intro]).then(() => { if (agreed) return ask() })
})()
